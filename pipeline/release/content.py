"""Evidence → manifest. Pure: what was judged goes in, what is to be signed comes out.

`content` is a digest of everything that a rerun from the same inputs gives again: models, golden answers, sources,
data, tools, settings, quality. What devices showed (`observed`) is signed with it but is not part of it: a clock never
reads the same twice, and a release must not be another one for that.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pipeline import codec
from pipeline.config_file import LoadedConfig
from pipeline.quality.energy import gross_per_inference_j
from pipeline.quality.statistics import summarize
from pipeline.records import Artifact, DataSummary, Decision, Prepared, Quality, Ranges, Searched
from pipeline.release.bom import bill_of_materials
from pipeline.release.bundle import BOM, CARD
from pipeline.release.card import model_card
from pipeline.release.records import (
    ClassModel,
    DeviceBudgets,
    Golden,
    Manifest,
    Measured,
    Observed,
    ReleasedData,
    ReleasedFile,
    ReleasedQuality,
    ReleasedSource,
)
from pipeline.samples import DataSpec
from pipeline.stages.judging import MAX_ANSWER_STEPS
from targets.records import Facts, Measurement

_NS_PER_MS = 1e6
_VARYING = ("sequence", "content", "observed", "files")
# Where things are and who signs is not what they are.
_NOT_SETTINGS: Final[Mapping[str, bool | set[str]]] = {
    "targets": True,
    "release": True,
    "name": True,
    "source": {"model"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """All that is known of the candidate chosen for one class."""

    recipe: str
    artifact: Artifact
    quality: Quality
    ranges: Ranges | None  # the ranges it was quantized with, if any
    searched: Searched | None
    golden: Golden
    measured: Mapping[str, tuple[Measurement, Facts]]  # target -> what it showed


def release_name(config_name: str) -> str:
    """The name as a file can have it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", config_name).strip("-._")[:100] or "model"


def manifest_of(
    loaded: LoadedConfig,
    name: str,
    prepared: Prepared,
    source_sha256: str,
    judged: Mapping[str, Judged],
    decision: Decision,
    tools: Mapping[str, str],
) -> Manifest:
    """The manifest without its number and its texts, which come last.

    Args:
        judged: class → its model, of the classes that get one.
    """
    config = loaded.config
    whole = Manifest(
        name=name,
        sequence=1,
        classes={name: _class_model(loaded, found) for name, found in judged.items()},
        source=ReleasedSource(file=Path(config.source.model).name, sha256=source_sha256, kind=prepared.source_kind),
        calibration=_data(prepared.calibration, config.calibration_data(), config.release.data_license),
        test=_data(prepared.test, config.data.spec("test"), ""),
        tools=dict(tools),
        settings=config.model_dump(mode="json", exclude=dict(_NOT_SETTINGS), exclude_defaults=True),
        budgets=loaded.budgets_as_written,
        license=config.release.license,
        summary=config.release.summary,
        observed=Observed(
            devices={
                name: {target: _measured(*seen) for target, seen in found.measured.items()}
                for name, found in judged.items()
            },
            verdicts=decision.verdicts,
            reasons=decision.reason_by_class,
        ),
    )
    return replace(whole, content=_content(whole))


def numbered(manifest: Manifest, sequence: int) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest with its number and the hashes of the texts that are made of it, and these texts."""
    manifest = replace(manifest, sequence=sequence, files={})
    texts = {CARD: model_card(manifest).encode(), BOM: bill_of_materials(manifest)}
    files = {
        name: ReleasedFile(sha256=hashlib.sha256(text).hexdigest(), size_bytes=len(text))
        for name, text in texts.items()
    }
    return replace(manifest, files=files), texts


def _content(manifest: Manifest) -> str:
    plain: dict[str, Any] = codec.plain(manifest)
    return hashlib.sha256(codec.canonical({k: v for k, v in plain.items() if k not in _VARYING})).hexdigest()


def _class_model(loaded: LoadedConfig, found: Judged) -> ClassModel:
    artifact, quality, budgets = found.artifact, found.quality, loaded.config.budgets
    return ClassModel(
        recipe=found.recipe,
        format=artifact.format,
        file=f"model.{artifact.format}",
        blob=artifact.blob,
        size_bytes=artifact.size_bytes - sum(artifact.beside.values()),
        beside=artifact.beside,
        golden=(found.golden,),
        max_steps=MAX_ANSWER_STEPS,
        budgets=DeviceBudgets(
            latency_p90_ms=budgets.latency_p90,
            peak_memory_bytes=None if budgets.peak_memory is None else int(budgets.peak_memory),
        ),
        runtime=_oldest([measured for measured, _ in found.measured.values()]),
        targets=tuple(sorted(found.measured)),
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        ops_total=artifact.ops_total,
        ops_quantized=artifact.ops_quantized,
        ops_left_float=_left_float(artifact),
        parameters=_parameters(found),
        quality=ReleasedQuality(
            fidelity=quality.fidelity, metrics=quality.metrics, samples=quality.samples, findings=quality.findings
        ),
        tools=artifact.tools,
        notes=artifact.notes,
    )


def _left_float(artifact: Artifact) -> dict[str, str]:
    """Op type → how many, and why; one type may have several reasons."""
    found: dict[str, list[str]] = {}
    for left in artifact.ops_left_float:
        found.setdefault(left.op, []).append(f"{left.count}: {left.reason}")
    return {op: "; ".join(reasons) for op, reasons in found.items()}


def _parameters(found: Judged) -> dict[str, str]:
    """What the recipe's name does not say."""
    parameters: dict[str, str] = {}
    if found.ranges:
        parameters |= {
            "range method": found.ranges.method,
            "percentile": f"{found.ranges.percentile:g}",
            "samples seen": str(found.ranges.samples),
            "sketch": found.ranges.sketch_digest,
        }
    if found.searched:
        counts: dict[str, int] = {}
        for precision in found.searched.precisions.values():
            counts[precision] = counts.get(precision, 0) + 1
        parameters["mix"] = ", ".join(f"{count} ops {precision}" for precision, count in sorted(counts.items()))
        parameters["repairs"] = ", ".join(found.searched.repairs)
    return parameters


def _oldest(measurements: Sequence[Measurement]) -> dict[str, str]:
    """Distribution → the oldest version that answered: what is proved for it is hoped for of newer ones."""
    versions: dict[str, list[str]] = {}
    for measured in measurements:
        versions.setdefault(measured.runtime, []).append(measured.runtime_version)
    return {name: min(found, key=_numbers) for name, found in sorted(versions.items())}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _data(summary: DataSummary, spec: DataSpec, license: str) -> ReleasedData:
    return ReleasedData(
        sha256=summary.digest,
        preprocess=summary.preprocess,
        count=summary.count,
        seed=spec.seed if spec.limit is not None else None,
        license=license,
    )


def _measured(measured: Measurement, facts: Facts) -> Measured:
    return Measured(
        load_ms=measured.load_ns / _NS_PER_MS,
        first_ms=measured.first_ns / _NS_PER_MS,
        warm_ms=summarize(measured.warm_ns),
        peak_memory_bytes=measured.peak_rss_bytes,
        energy_j=gross_per_inference_j(measured),
        answer_steps=measured.answer.max_steps,
        runtime=f"{measured.runtime} {measured.runtime_version}",
        arch=facts.arch,
        cpu=facts.cpu_model,
        os=facts.os,
        threads=measured.threads,
        emulated=measured.conditions.get("emulated", ""),
    )

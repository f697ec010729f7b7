"""release: what the gate chose, as one bundle with the next number; the same as before keeps the number it has."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import codec
from pipeline.flow import Results, Step
from pipeline.plugins import versions
from pipeline.quality.energy import gross_per_inference_j
from pipeline.quality.statistics import summarize
from pipeline.recipes.recipe import recipe
from pipeline.records import Artifact, Decision, Format, Measured, Prepared, Pushed, Quality, Ranges, Refusal, Searched
from pipeline.release.bundle import bundle_name, read_manifest, release_id, write_bundle
from pipeline.release.content import Judged, manifest_of, numbered, release_name
from pipeline.release.history import History, now
from pipeline.release.keys import PrivateKey
from pipeline.release.records import Golden, Manifest, Released, ReleaseEntry, RunEntry, RunNumbers, RunRecipe
from pipeline.stages.context import Context, Progress
from pipeline.stages.devices import fitting
from pipeline.stages.export import model_path
from pipeline.stages.rounds import told
from targets.records import Absent, Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Releasing:
    """What deploy.yaml does not hold of a release."""

    key: PrivateKey | None = None  # signs it
    at_least: int = 1  # least number of a new release
    wanted: bool = True  # False: a rehearsal


def release_step(
    context: Context,
    out: Path,
    classes: Mapping[str, str],
    releasing: Releasing,
    prepared: Step,
    calibrated: Mapping[Format, Step],
    searched: Mapping[str, Step],
    quantized: Mapping[str, Step],
    validated: Mapping[str, Step],
    pushed: Mapping[str, Step],
    measured: Mapping[str, Step],
    gated: Step,
) -> Step:
    """The bundle in `out`, and the run in the history.

    Args:
        classes: target → class of devices.
    """
    key, at_least = releasing.key, releasing.at_least
    name = release_name(context.loaded.config.name or model_path(context).stem)

    def run(results: Results, report: Progress) -> Released | Refusal:
        if not releasing.wanted:
            return Refusal(stage="release", reason="a rehearsal releases nothing")
        decision: Decision = results[gated]
        history = History(context.store.root, name)
        judged = {}
        for device_class, chosen in decision.chosen_by_class.items():
            if chosen is not None:
                places = [target for target, found in classes.items() if found == device_class]
                judged[device_class] = _judged(chosen, places, results)
        released: Released | Refusal
        if judged:
            released = _release(history, judged, results, decision)
        else:
            released = Refusal(stage="release", reason="nothing was chosen, so there is nothing to release")
        history.add_run(_run_entry(decision, results, released))
        return released

    def _judged(chosen: str, places: list[str], results: Results) -> Judged:
        quality: Quality = results[validated[chosen]]
        artifact: Artifact = results[quantized[chosen]]
        ranges = results[calibrated[artifact.format]] if artifact.format in calibrated else None
        search = results[searched[chosen]] if chosen in searched else None
        # Where one device of the class needs an older form of the model, all of them get it.
        fits = [there.fits.get(chosen) for target in places if isinstance(there := results[pushed[target]], Pushed)]
        artifact, quality = fitting(artifact, quality, next((fit for fit in fits if fit and fit.lowered), None))
        seen = {}
        for target in places:
            found, there = results[measured[target]], results[pushed[target]]
            if isinstance(found, Measured) and isinstance(there, Pushed):
                measurement = told(found, chosen)
                if isinstance(measurement, Measurement):
                    seen[target] = (measurement, there.facts)
        size = {digest: context.store.path(digest).stat().st_size for digest in _golden_digests(quality)}
        return Judged(
            recipe=chosen,
            artifact=artifact,
            quality=quality,
            ranges=ranges if isinstance(ranges, Ranges) and recipe(chosen).start == "ranges" else None,
            searched=search if isinstance(search, Searched) else None,
            golden=Golden(
                inputs=quality.golden_inputs,
                inputs_bytes=size[quality.golden_inputs],
                expected=quality.golden_outputs,
                expected_bytes=size[quality.golden_outputs],
            ),
            measured=seen,
        )

    def _release(history: History, judged: Mapping[str, Judged], results: Results, decision: Decision) -> Released:
        source: Prepared = results[prepared]
        tools = {**source.tools, **versions("edge-deploy-pipeline", "ai-edge-litert", "onnxruntime", "numpy")}
        whole = manifest_of(
            context.loaded, name, source, str(prepared.settings["model"]), judged, decision, dict(sorted(tools.items()))
        )
        sequence, entry, new = _number(history, whole)
        manifest = entry.manifest.encode()
        record = read_manifest(manifest)
        blobs = {digest: context.store.path(digest) for digest in _digests(record)}
        texts = {file: text.encode() for file, text in entry.texts.items()}
        file = bundle_name(record)
        write_bundle(out / file, manifest, blobs, texts, bytes.fromhex(entry.signature))
        return Released(
            id=entry.id,
            name=name,
            sequence=sequence,
            file=file,
            new=new,
            signed_by=entry.signed_by,
            classes={device_class: model.recipe for device_class, model in record.classes.items()},
            without={c: r for c, r in decision.reason_by_class.items() if c not in record.classes},
        )

    def _number(history: History, whole: Manifest) -> tuple[int, ReleaseEntry, bool]:
        """The last release when this is the same again, else a new one."""
        before = history.releases()
        if before:
            last, entry = max(before.items())
            if read_manifest(entry.manifest.encode()).content == whole.content and last >= at_least:
                if key is not None and entry.signed_by != key.public.fingerprint:
                    entry = _signed(entry)
                    history.sign_release(last, entry)
                return last, entry, False
        sequence, entry = history.add_release(lambda number: _signed(_entry(whole, number)), at_least=at_least)
        return sequence, entry, True

    def _signed(entry: ReleaseEntry) -> ReleaseEntry:
        if key is None:
            return entry
        signature = key.sign(entry.manifest.encode()).hex()
        return replace(entry, signature=signature, signed_by=key.public.fingerprint)

    def _run_entry(decision: Decision, results: Results, released: Released | Refusal) -> RunEntry:
        targets: dict[str, dict[str, RunNumbers]] = {}
        for target, step in measured.items():
            found = results[step]
            for each in found.results if isinstance(found, Measured) else ():
                verdict = decision.verdicts[target][each].verdict
                targets.setdefault(target, {})[each] = _numbers(verdict, told(found, each))
        recipes = {}
        for each, step in quantized.items():
            artifact, quality = results[step], results[validated[each]]
            if isinstance(artifact, Artifact) and isinstance(quality, Quality):
                metrics = {metric: value.value for metric, value in quality.metrics.items()}
                recipes[each] = RunRecipe(size_bytes=artifact.size_bytes, fidelity=quality.fidelity, metrics=metrics)
        made = released if isinstance(released, Released) else None
        return RunEntry(
            date=now(),
            status=decision.status,
            reason=decision.reason,
            chosen=decision.chosen_by_class,
            classes=dict(classes),
            release=made.id if made else "",
            sequence=made.sequence if made else 0,
            new=bool(made and made.new),
            targets=targets,
            recipes=recipes,
        )

    judging = (*quantized.values(), *validated.values(), *pushed.values(), *measured.values(), gated)
    return Step(
        stage="release",
        name="release",
        run=run,
        records=(Released,),
        needs=(prepared, *calibrated.values(), *searched.values(), *judging),
        reusable=False,
        tolerant=True,
    )


def _entry(whole: Manifest, sequence: int) -> ReleaseEntry:
    record, texts = numbered(whole, sequence)
    manifest = codec.encode(record)
    return ReleaseEntry(
        date=now(),
        id=release_id(manifest),
        manifest=manifest.decode(),
        signature="",
        signed_by="",
        texts={name: text.decode() for name, text in texts.items()},
    )


def _golden_digests(quality: Quality) -> tuple[str, str]:
    return quality.golden_inputs, quality.golden_outputs


def _digests(record: Manifest) -> set[str]:
    found = {digest for model in record.classes.values() for digest in (model.blob, *model.beside)}
    for model in record.classes.values():
        found |= {digest for golden in model.golden for digest in (golden.inputs, golden.expected)}
    return found


def _numbers(verdict: str, measurement: object) -> RunNumbers:
    if not isinstance(measurement, Measurement):
        return RunNumbers(verdict=verdict)
    warm = summarize(measurement.warm_ns)
    energy = gross_per_inference_j(measurement)
    peak = measurement.peak_rss_bytes
    return RunNumbers(
        verdict=verdict,
        latency_p50_ms=warm.median,
        latency_p90_ms=warm.p90,
        first_ms=measurement.first_ns / 1e6,
        load_ms=measurement.load_ns / 1e6,
        peak_memory_bytes=None if isinstance(peak, Absent) else peak,
        energy_j=None if isinstance(energy, Absent) else energy,
    )

"""Asking the worker what a block does and how good a mix is, and the device how fast it is. The pure parts decide."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pipeline.config import MeasureConfig
from pipeline.errors import ConversionFailed, DeployError
from pipeline.model_files import beside
from pipeline.quality import MetricScore, MetricSpec, paired_drop, summarize
from pipeline.records import Drop, Precision, Trial
from pipeline.search.messages import Baseline, Judged, Workbench
from pipeline.search.ops import Block, Op
from pipeline.search.sensitivity import Probe
from pipeline.search.strategy import Mix
from pipeline.search.testing import sample_drops
from pipeline.store import file_digest
from pipeline.worker import Worker
from targets.device import connect
from targets.records import BenchRequest, TargetSpec

# A mix whose inference takes this much longer on the host than float's is no candidate for latency anywhere: reference
# kernels (int16x8) take 20 to 100 times as long, an unlucky choice of kernels not more than 3.
_TOO_SLOW = 8.0
_LEAST_SLOW_S = 0.02  # below this the timer and the machine's other work decide


class Prober:
    """What blocks do to the answers, each alone."""

    def __init__(self, worker: Worker, bench: Workbench, ops: Sequence[Op], blocks: Sequence[Block]) -> None:
        self._worker, self._bench = worker, bench
        self._ops = tuple(op.name for op in ops)
        self._tensors = tuple(dict.fromkeys(block.output for block in blocks))
        self._samples = 0

    def open(self, most: int) -> int:
        """Keep the float model's answers to `most` calibration samples; how many there are."""
        self._samples = self._worker.call(
            "pipeline.search.jobs:float_answers", bench=self._bench, tensors=self._tensors, most=most
        )
        return self._samples

    def probe(self, blocks: Sequence[Block], precision: Precision) -> Probe:
        """These blocks in `precision` and all else in float; refused when that cannot be made or run."""
        last = blocks[-1].output
        try:
            found: Probe = self._worker.call(
                "pipeline.search.jobs:probe",
                bench=self._bench,
                ops=self._ops,
                inside={op: precision for block in blocks for op in block.ops},
                tensor=last,
                place=self._tensors.index(last),
                samples=self._samples,
            )
            return found
        except ConversionFailed as error:
            return Probe(op_sqnr_db=0.0, output_sqnr_db=0.0, refused=error.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where latency is measured, and for how long."""

    spec: TargetSpec
    state: Path
    measure: MeasureConfig


class Judge:
    """Makes mixes, runs them on the kept samples, and measures those that meet the target."""

    def __init__(
        self,
        worker: Worker,
        bench: Workbench,
        ops: Sequence[Op],
        blocks: Sequence[Block],
        *,
        metrics: Sequence[MetricSpec],
        baseline: Baseline,
        allowed: Mapping[str, float],
        least_db: float | None,
        target: Target | None,
    ) -> None:
        self._worker, self._bench = worker, bench
        self._ops, self._blocks = tuple(op.name for op in ops), {block.name: block for block in blocks}
        self._metrics, self._baseline, self._allowed, self._least_db = metrics, baseline, allowed, least_db
        self._target = target
        self._float_s = 0.0
        self._count = 0
        self._files: dict[str, Path] = {}  # of the mixes that were measured
        self.findings: dict[str, None] = {}  # in order, each once

    def precisions(self, mix: Mix) -> dict[str, Precision]:
        """What every op gets: its block's precision, or float32 when it is in none."""
        found: dict[str, Precision] = dict.fromkeys(self._ops, "float32")
        for name, precision in mix.precisions.items():
            found |= dict.fromkeys(self._blocks[name].ops, precision)
        return found

    def judge(self, mix: Mix) -> Trial:
        """One true evaluation."""
        counts: dict[str, int] = {}
        for precision in mix.precisions.values():
            counts[precision] = counts.get(precision, 0) + 1
        self._count += 1
        output = self._bench.folder / str(self._count) / f"candidate.{self._bench.format}"
        output.parent.mkdir()
        limit_s = max(_TOO_SLOW * self._float_s, _LEAST_SLOW_S) if self._float_s and self._target else float("inf")
        empty = Trial(
            name=mix.name,
            blocks=dict(sorted(counts.items())),
            repairs=mix.repairs,
            verdict="refused",
            drops=(),
            sqnr_db=0.0,
            samples=0,
            size_bytes=0,
            int8_share=0.0,
        )
        try:
            judged: Judged = self._worker.call(
                "pipeline.search.jobs:judge",
                bench=self._bench,
                precisions=self.precisions(mix),
                repairs=mix.repairs,
                metrics=self._metrics,
                baseline=self._baseline.scores,
                allowed=self._allowed,
                samples=self._baseline.samples,
                slowest_s=limit_s,
                output=output,
            )
        except ConversionFailed as error:
            return replace(empty, reason=error.message)
        self._float_s = self._float_s or judged.first_s  # the first mix is float32
        drops = tuple(self._drop(name, most, judged) for name, most in self._allowed.items())
        verdict, reason = _verdict(judged, drops, self._least_db, limit_s)
        trial = replace(
            empty,
            verdict=verdict,
            drops=drops,
            sqnr_db=judged.fidelity["sqnr_db"],
            samples=judged.samples,
            size_bytes=judged.size_bytes,
            int8_share=judged.int8_share,
            reason=reason,
        )
        in_question = verdict in ("meets", "unsure") or mix.name.startswith("int8")
        if not in_question or judged.too_slow:
            shutil.rmtree(output.parent)
            return trial
        self._files[mix.name] = output
        return replace(trial, latency_ms=self._latency_ms(output))

    def again(self, trials: Sequence[Trial], names: Sequence[str]) -> tuple[Trial, ...]:
        """The trials with those of `names` measured twice more in turns; the least median is what the rest disturbed
        least."""
        found: dict[str, list[float]] = {name: [] for name in names}
        for name in (*names, *names) if len(names) > 1 else ():
            latency_ms = self._latency_ms(self._files[name])
            if latency_ms is not None:
                found[name].append(latency_ms)
        return tuple(
            replace(trial, latency_ms=min(found[trial.name])) if found.get(trial.name) else trial for trial in trials
        )

    def _drop(self, name: str, allowed: float, judged: Judged) -> Drop:
        drops = sample_drops(name, judged.scores, judged.per_sample, self._baseline.scores)
        if drops:
            found = paired_drop([0.0] * len(drops), drops, "lower")
            return Drop(metric=name, value=found.mean, low=found.ci95[0], high=found.ci95[1], allowed=allowed)
        value = _whole_drop(name, judged, self._baseline.scores)
        self.findings[f"{name} has no value for one sample: it is judged without an interval"] = None
        return Drop(metric=name, value=value, low=value, high=value, allowed=allowed)

    def _latency_ms(self, model: Path) -> float | None:
        """Median on the target; None when it cannot be measured, and a finding says why."""
        if self._target is None:
            return None
        spec, asked = self._target.spec, self._target.measure
        inputs, expected = model.with_name("golden_inputs"), model.with_name("golden_outputs")
        request = BenchRequest(
            blob=file_digest(model),
            format=self._bench.format,
            inputs=file_digest(inputs),
            expected=file_digest(expected),
            beside=beside(self._bench.format, model),
            threads=spec.threads,
            warm_max_s=asked.warm,
            warm_min_samples=asked.min_samples,
            warm_max_samples=asked.max_samples,
        )
        try:
            with connect(spec, state=self._target.state) as device:
                places = {"blob": model, "inputs": inputs, "expected": expected}
                for role, digest in request.files.items():
                    path = places.get(role, model.parent / digest)
                    device.push(path, digest)
                return summarize(device.bench(request, spec.step_timeout_s).warm_ns).median
        except DeployError as error:
            self.findings[f"not measured on {spec.name}: {error.message}"] = None
            return None


def _whole_drop(name: str, judged: Judged, baseline: Mapping[str, MetricScore]) -> float:
    if name not in judged.scores or name not in baseline:
        raise ConversionFailed(f"max_drop limits {name}, which nothing measures", hint="add it to quality.metrics")
    ours, theirs = judged.scores[name], baseline[name]
    return theirs.value - ours.value if ours.better == "higher" else ours.value - theirs.value


def _verdict(
    judged: Judged, drops: Sequence[Drop], least_db: float | None, limit_s: float
) -> tuple[Literal["meets", "unsure", "misses"], str]:
    # 1.00 − 0.98 is 0.02 and a bit in binary.
    rounding = 1e-9
    if judged.too_slow:
        return "misses", f"{judged.first_s * 1e3:.0f} ms on this host, over {limit_s * 1e3:.0f} ms: reference kernels"
    if judged.fidelity["finite_share"] < 1:
        return "misses", "its answers are not all finite"
    if least_db is not None and judged.fidelity["sqnr_db"] < least_db:
        return "misses", f"wrong: {judged.fidelity['sqnr_db']:.1f} dB SQNR against the float model"
    over = [drop for drop in drops if drop.value > drop.allowed + rounding]
    if over:
        return "misses", "; ".join(f"{d.metric} loses {d.value:.3g}, allowed are {d.allowed:g}" for d in over)
    wide = [drop for drop in drops if drop.high > drop.allowed + rounding]
    if wide:
        return "unsure", "; ".join(
            f"{d.metric} loses {d.value:.3g}, but up to {d.high:.3g} with 95 % confidence" for d in wide
        )
    return "meets", ""

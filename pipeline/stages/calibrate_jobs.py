"""The worker's side of `calibrate`: plan the passes, observe, choose ranges."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.calibration import OBSERVERS
from pipeline.calibration.engine import LEVELS, observe, show
from pipeline.calibration.findings import findings, stability
from pipeline.calibration.learned import placed, read_learned
from pipeline.calibration.methods import Chosen, Method, choose
from pipeline.calibration.observer import Array, Observer, Plan, plan
from pipeline.calibration.sketch_file import SketchFile, merge_files, read_sketches
from pipeline.plugins import load_plugin
from pipeline.records import Format
from pipeline.samples import DataSpec, open_samples
from pipeline.store import file_digest
from targets.records import TensorSpec

Report = Callable[[int, int], None]


def foresee(*, format: Format, model: Path, budget_bytes: float, scratch: Path, report: Report) -> Plan:
    """What calibration will take in memory and passes; runs nothing."""
    return plan(open_observer(format, model, scratch), LEVELS, int(budget_bytes))


def calibrate(
    *,
    format: Format,
    model: Path,
    calibrate: DataSpec,
    inputs: tuple[TensorSpec, ...],
    base: Path,
    scratch: Path,
    report: Report,
    learned: Path | None = None,
    method: Method = "best",
    percentile: float = 99.99,
    budget_bytes: float = 1e9,
    merge: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Observe every float tensor over the calibration samples, once for all recipes.

    Writes `scratch`/ranges and `scratch`/extremes ({tensor: [low, high]}) and `scratch`/sketch; returns fields of
    `Ranges`. A range that training `learned` takes the place of the calibrated one, in both.
    """
    observer = open_observer(format, model, scratch)
    planned = plan(observer, LEVELS, int(budget_bytes))
    samples = open_samples(calibrate, inputs, base)
    observation = observe(observer, samples, planned, report)
    own = SketchFile(
        format=format, model=file_digest(model), samples=observation.samples, sketches=observation.sketches()
    )
    others = {name: read_sketches(path) for name, path in (merge or {}).items()}
    # Each format has its own tensors, and `calibration.merge` names the files of both.
    whole = merge_files({"data.calibrate": own, **{name: one for name, one in others.items() if one.format == format}})
    whole.write(scratch / "sketch")
    chosen = {name: choose(sketch, method, percentile) for name, sketch in whole.sketches.items()}
    extremes = {name: choose(sketch, "min-max", percentile) for name, sketch in whole.sketches.items()}
    trained, notes = _placed(learned, observer, planned, next(iter(samples)).inputs) if learned else ({}, ())
    _write(scratch / "ranges", {**chosen, **trained})
    _write(scratch / "extremes", {**extremes, **trained})
    found = stability(observation, method, percentile)
    return {
        "model": whole.model,
        "sketch_digest": whole.digest,
        "method": method,
        "percentile": percentile,
        "chosen_methods": dict(sorted(Counter(one.method for one in {**chosen, **trained}.values()).items())),
        "tensors": len(chosen),
        "dead_tensors": tuple(name for name, sketch in whole.sketches.items() if sketch.dead),
        "constant_tensors": tuple(n for n, sketch in whole.sketches.items() if sketch.constant and not sketch.dead),
        "unstable_tensors": dict(found.unstable),
        "coverage": found.coverage,
        "samples": len(whole.samples),
        "passes": len(planned.groups),
        "predicted_peak_bytes": planned.peak_bytes,
        "budget_bytes": planned.budget_bytes,
        "findings": findings(found, whole.sketches),
        "notes": notes,
    }


def _placed(
    learned: Path, observer: Observer, planned: Plan, first: Mapping[str, Array]
) -> tuple[dict[str, Chosen], tuple[str, ...]]:
    """The learned range of each tensor that is found, and a note on those that are not."""
    ranges, lost = placed(read_learned(learned), lambda take: show(observer, planned, first, take))
    notes = (f"learned ranges without a tensor in this export, calibrated instead: {', '.join(lost)}",) if lost else ()
    return {name: Chosen(low=low, high=high, method="learned") for name, (low, high) in ranges.items()}, notes


def open_observer(format: Format, model: Path, scratch: Path) -> Observer:
    """The observer of a float model in this format."""
    made: Observer = load_plugin(OBSERVERS[format])(model, scratch)
    return made


def _write(path: Path, ranges: Mapping[str, Chosen]) -> None:
    path.write_text(json.dumps({name: [one.low, one.high] for name, one in ranges.items()}, sort_keys=True))

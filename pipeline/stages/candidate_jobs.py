"""The worker's side of `calibrate` and `quantize`."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.calibration import OBSERVERS
from pipeline.calibration.learned import placed, read_learned
from pipeline.calibration.ranges import MinMax, Observer
from pipeline.exporters.source import Arrays, missing_tensorflow
from pipeline.plugins import load_plugin
from pipeline.recipes.coverage import coverage
from pipeline.recipes.recipe import Ingredients, recipe
from pipeline.records import Format
from pipeline.runtimes.runtime import open_model
from pipeline.samples import DataSpec, open_samples
from targets.records import TensorSpec

Report = Callable[[int, int], None]


def calibrate(
    *,
    format: Format,
    model: Path,
    calibrate: DataSpec,
    inputs: tuple[TensorSpec, ...],
    base: Path,
    output: Path,
    learned: Path | None = None,
    report: Report,
) -> dict[str, Any]:
    """Observe every float tensor over the calibration samples; writes {tensor: [min, max]} to `output`.

    A range that training `learned` takes the place of the observed one.
    """
    observer: Observer = load_plugin(OBSERVERS[format])(model)
    observed = MinMax()
    samples = open_samples(calibrate, inputs, base)
    for number, sample in enumerate(samples):
        for tensor, values in observer.observe(sample.inputs):
            observed.add(sample.id, tensor, values)
        report(number + 1, len(samples))
    placed_ranges, notes = _placed(learned, observer, next(iter(samples)).inputs) if learned else ({}, ())
    ranges = {**observed.result(), **placed_ranges}
    output.write_text(json.dumps(ranges, sort_keys=True))
    constant = tuple(name for name, (low, high) in ranges.items() if low == high)
    return {"tensors": len(ranges), "constant_tensors": constant, "samples": len(samples), "notes": notes}


def _placed(learned: Path, observer: Observer, first: Arrays) -> tuple[dict[str, tuple[float, float]], tuple[str, ...]]:
    ranges, lost = placed(read_learned(learned), observer.observe(first))
    notes = (f"learned ranges without a tensor in this export, calibrated instead: {', '.join(lost)}",) if lost else ()
    return ranges, notes


def quantize(
    *,
    name: str,
    source: Path,
    float_model: Path,
    ranges: Path | None,
    output: Path,
    scratch: Path,
    report: Report,
) -> dict[str, Any]:
    """Run one recipe and load the result: an artifact that cannot be loaded is none. `validate` runs it.

    Returns fields of `Artifact`; the file is `output`.
    """
    chosen = recipe(name)
    observed = json.loads(ranges.read_text()) if ranges else {}
    ingredients = Ingredients(
        source=source,
        float_model=float_model,
        ranges={tensor: (low, high) for tensor, (low, high) in observed.items()},
        scratch=scratch,
    )
    started = time.perf_counter()
    try:
        chosen.quantize(ingredients, output)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in {"tensorflow", "keras"}:
            raise missing_tensorflow(error.name, name) from None
        raise
    convert_s = time.perf_counter() - started
    model = open_model(chosen.format, output)
    covered = coverage(chosen.format, output, chosen.why_float)
    return {
        "inputs": model.inputs,
        "outputs": model.outputs,
        "ops_total": covered.total,
        "ops_quantized": covered.quantized,
        "ops_left_float": covered.left_float,
        "convert_s": convert_s,
    }

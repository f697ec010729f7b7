"""The worker's side of `quantize`."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.exporters.source import missing_tensorflow, missing_torch
from pipeline.recipes.coverage import coverage
from pipeline.recipes.recipe import Ingredients, Inputs, recipe
from pipeline.records import Precision, Repair
from pipeline.runtimes.runtime import open_model
from pipeline.samples import DataSpec, open_samples
from targets.records import TensorSpec

Report = Callable[[int, int], None]


def observed_ranges(path: Path) -> dict[str, tuple[float, float]]:
    """What `calibrate` wrote."""
    return {tensor: (low, high) for tensor, (low, high) in json.loads(path.read_text()).items()}


def quantize(
    *,
    name: str,
    source: Path,
    float_model: Path,
    ranges: Path | None,
    calibrate: DataSpec,
    inputs: tuple[TensorSpec, ...],
    base: Path,
    precisions: Mapping[str, Precision],
    repairs: tuple[Repair, ...],
    output: Path,
    scratch: Path,
    report: Report,
) -> dict[str, Any]:
    """Run one recipe and load the result: an artifact that cannot be loaded is none. `validate` runs it.

    `precisions` and `repairs` are what a search found, else empty; `inputs` describes the calibration samples.

    Returns fields of `Artifact`; the file is `output`.
    """
    chosen = recipe(name)

    def samples() -> Iterator[Inputs]:
        for sample in open_samples(calibrate, inputs, base):
            yield sample.inputs

    ingredients = Ingredients(
        source=source,
        float_model=float_model,
        ranges=observed_ranges(ranges) if ranges else {},
        scratch=scratch,
        precisions=precisions,
        repairs=repairs,
        samples=samples,
    )
    started = time.perf_counter()
    try:
        chosen.quantize(ingredients, output)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in {"tensorflow", "keras"}:
            raise missing_tensorflow(error.name, name) from None
        if error.name and error.name.split(".")[0] == "torch":
            raise missing_torch(error.name, name) from None
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

"""The worker's side of `quantize`."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.exporters.source import missing_tensorflow, missing_torch
from pipeline.recipes.coverage import coverage
from pipeline.recipes.ladder import climb
from pipeline.recipes.mixing import mixed
from pipeline.recipes.recipe import Ingredients, Inputs, recipe
from pipeline.records import Precision, Repair
from pipeline.runtimes.pixels import Affine
from pipeline.runtimes.runtime import open_model
from pipeline.runtimes.state import state_of, write_state
from pipeline.samples import DataSpec, open_samples
from pipeline.samples.batching import without_batch
from pipeline.search.ops import read_ops
from targets.records import TensorSpec

Report = Callable[[int, int], None]


def observed_ranges(path: Path) -> dict[str, tuple[float, float]]:
    """What `calibrate` wrote."""
    return {tensor: (low, high) for tensor, (low, high) in json.loads(path.read_text()).items()}


def _pixels(calibrate: DataSpec, inputs: tuple[TensorSpec, ...], base: Path) -> dict[str, Affine]:
    """What a byte of each float input's images means, by its steps. Raises ConversionFailed where there are none."""
    from pipeline.recipes.pixels import affine

    raw, _ = open_samples(calibrate, inputs, base).first_raw()
    floats = [tensor for tensor in inputs if tensor.dtype == "float32"]
    return {
        tensor.name: affine(
            tensor.name, calibrate.steps(tensor.name), without_batch(raw.id, tensor, raw.inputs[tensor.name])[0]
        )
        for tensor in floats
    }


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
    rules: Mapping[str, Precision] = MappingProxyType({}),
    rest: Precision = "int8",
) -> dict[str, Any]:
    """Run one recipe and load the result: an artifact that cannot be loaded is none. `validate` runs it.

    `precisions` and `repairs` are what a search found, else empty; `rules` and `rest` are deploy.yaml's `mixed`;
    `inputs` describes the calibration samples.

    Returns fields of `Artifact`; the file is `output`.
    """
    chosen = recipe(name)
    if chosen.start == "mixed":
        precisions = mixed(read_ops(chosen.format, float_model), rules, rest, chosen.format)

    stateful = open_model(chosen.format, float_model) if state_of(chosen.format, float_model) else None

    def samples() -> Iterator[Inputs]:
        for sample in open_samples(calibrate, inputs, base):
            yield from stateful.steps(sample.inputs) if stateful else (sample.inputs,)

    ingredients = Ingredients(
        source=source,
        float_model=float_model,
        ranges=observed_ranges(ranges) if ranges else {},
        scratch=scratch,
        precisions=precisions,
        repairs=repairs,
        samples=samples,
        pixels=_pixels(calibrate, inputs, base) if getattr(chosen, "folds", False) else {},
    )

    def keep_state(made: Path) -> None:
        write_state(chosen.format, made, state_of(chosen.format, float_model))

    started = time.perf_counter()
    try:
        model, notes = climb(chosen, ingredients, output, keep_state)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in {"tensorflow", "keras"}:
            raise missing_tensorflow(error.name, name) from None
        if error.name and error.name.split(".")[0] == "torch":
            raise missing_torch(error.name, name) from None
        raise
    convert_s = time.perf_counter() - started
    covered = coverage(chosen.format, output, chosen.why_float)
    return {
        "inputs": model.inputs,
        "outputs": model.outputs,
        "ops_total": covered.total,
        "ops_quantized": covered.quantized,
        "ops_left_float": covered.left_float,
        "convert_s": convert_s,
        "notes": notes,
    }

"""The worker's side of `quantize`."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.exporters.source import missing_tensorflow
from pipeline.recipes.coverage import coverage
from pipeline.recipes.recipe import Ingredients, recipe
from pipeline.runtimes.runtime import open_model

Report = Callable[[int, int], None]


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

"""One calibration in a process of its own: prints its wall and CPU seconds and the process's peak memory as JSON.

    python -m benchmarks.calibration.sides SIDE MODEL SAMPLES

Samples are made before the clock starts; for the side `ours-made-anew`, whose memory counts, one by one.
"""

import hashlib
import json
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.calibration.models import images, laid_out


@dataclass(frozen=True)
class Sample:
    id: str
    inputs: Mapping[str, np.ndarray[Any, Any]]
    digest: str


class Made:
    """Samples for the engine: from a list, or made anew on every pass."""

    def __init__(self, count: int, feed: Callable[[Any], Mapping[str, Any]], kept: Sequence[Any]) -> None:
        self._count, self._feed, self._kept = count, feed, kept

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        for number, image in enumerate(self._kept or images(self._count)):
            yield Sample(str(number), self._feed(image), hashlib.sha256(str(number).encode()).hexdigest())


def ours(model: Path, count: int, kept: Sequence[Any]) -> None:
    """The engine as `calibrate` uses it, with histograms of every tensor, and the percentile of each."""
    from pipeline.calibration import OBSERVERS
    from pipeline.calibration.engine import LEVELS, observe
    from pipeline.calibration.methods import choose
    from pipeline.calibration.observer import plan
    from pipeline.plugins import load_plugin

    with tempfile.TemporaryDirectory() as scratch:
        observer = load_plugin(OBSERVERS[model.suffix[1:]])(model, Path(scratch))
        planned = plan(observer, LEVELS, 1_000_000_000)
        name = input_name(model)
        found = observe(observer, Made(count, lambda image: {name: image}, kept), planned, lambda done, total: None)
        for sketch in found.sketches().values():
            choose(sketch, "percentile", 99.99)


def onnxruntime_percentile(model: Path, count: int, kept: Sequence[Any]) -> None:
    """onnxruntime.quantization.quantize_static with CalibrationMethod.Percentile."""
    from onnxruntime.quantization import CalibrationMethod

    with tempfile.TemporaryDirectory() as scratch:
        quantize_static(model, Path(scratch) / "int8.onnx", kept, CalibrationMethod.Percentile)


def quantize_static(model: Path, output: Path, samples: Sequence[Any], method: Any) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType
    from onnxruntime.quantization import quantize_static as quantize

    name = input_name(model)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = iter([{name: sample} for sample in samples])

        def get_next(self) -> Any:
            return next(self._feeds, None)

    quantize(
        model,
        output,
        Reader(),
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=method,
        extra_options={"CalibPercentile": 99.99},
    )


def ai_edge_quantizer(model: Path, count: int, kept: Sequence[Any]) -> None:
    """ai_edge_quantizer.Quantizer.calibrate: minimum and maximum only."""
    calibrated(model, kept)


def calibrated(model: Path, samples: Sequence[Any]) -> tuple[Any, Any]:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    engine = quantizer.Quantizer(str(model), recipe.static_wi8_ai8())
    key, signature = next(iter(Interpreter(str(model)).get_signature_list().items()))
    return engine, engine.calibrate({key: [{signature["inputs"][0]: sample} for sample in samples]})


def input_name(model: Path) -> str:
    return _input(model).name


def input_shape(model: Path) -> tuple[int, ...]:
    return tuple(_input(model).shape)


def _input(model: Path) -> Any:
    from pipeline.runtimes.runtime import open_model

    return open_model(model.suffix[1:], model).inputs[0]


SIDES = {
    "ours": ours,
    "ours-made-anew": ours,
    "onnxruntime": onnxruntime_percentile,
    "ai-edge-quantizer": ai_edge_quantizer,
}


def main(side: str, model: Path, count: int) -> None:
    shape = input_shape(model)
    kept = [] if side == "ours-made-anew" else [laid_out(image, shape) for image in images(count)]
    wall, cpu = time.perf_counter(), time.process_time()
    SIDES[side](model, count, kept)
    spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    print("\n" + json.dumps({**spent, "peak_bytes": peak_bytes()}))


def peak_bytes() -> int:
    """The peak of this process alone: ru_maxrss begins at the parent's."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))

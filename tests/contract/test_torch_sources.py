"""PyTorch sources in every form: names, shapes, the module's own answers, and each export proven against these."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import InputError, UsageError
from pipeline.quality.outputs import OutputsReader
from pipeline.samples import DataSection
from pipeline.worker import Worker

NETS = Path(__file__).parents[1] / "torch_nets.py"
DATA = DataSection(calibrate="calibrate.npz", test="test.npz")
IMAGE = {"image": ("float32", (3, 12, 12))}
# Function -> samples (without batch axis), the shapes of the answers by their names.
FUNCTIONS: dict[str, tuple[dict[str, tuple[str, tuple[int, ...]]], dict[str, tuple[int, ...]]]] = {
    "two_inputs": ({"left": ("float32", (8,)), "right": ("float32", (6,))}, {"second": (1, 2), "first": (1, 1)}),
    "tokens": ({"tokens": ("int64", (3,))}, {"output_0": (1, 50), "output_1": (1, 1, 32)}),
    "image": (IMAGE, {"output": (1, 5)}),
    "step": (
        {"frame": ("float32", (8,)), "state": ("float32", (2, 1, 16))},
        {"answer": (1, 16), "state_out": (2, 1, 16)},
    ),
}


def write_samples(folder: Path, inputs: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    for part, seed in (("calibrate", 1), ("test", 2)):
        random = np.random.default_rng(seed)
        arrays = {
            name: random.integers(0, 50, (3, *shape)) if dtype == "int64" else random.normal(size=(3, *shape))
            for name, (dtype, shape) in inputs.items()
        }
        np.savez(folder / f"{part}.npz", **{name: array.astype(inputs[name][0]) for name, array in arrays.items()})


def prepare(worker: Worker, folder: Path, model: str, **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "kind": "pytorch",
        "model": folder / model,
        "signature": "",
        "shapes": {},
        "calibrate": DATA.spec("calibrate"),
        "test": DATA.spec("test"),
        "base": folder,
        "scratch": folder,
    }
    found: dict[str, Any] = worker.call("pipeline.stages.export_jobs:prepare", **{**arguments, **changes})
    return found


def hop(worker: Worker, folder: Path, format: str, prepared: dict[str, Any], **more: Any) -> dict[str, Any]:
    scratch = folder / format
    scratch.mkdir()
    made = worker.call(f"pipeline.stages.torch_jobs:to_{format}", source=folder / "model", scratch=scratch, **more)
    compared = worker.call(
        "pipeline.stages.export_jobs:compare_hop",
        format=format,
        model=scratch / "model",
        reference=folder / "reference",
        calibrate=DATA.spec("calibrate"),
        inputs=prepared["inputs"],
        base=folder,
    )
    return {**made, **compared}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function(worker: Worker, tmp_path: Path, function: str) -> None:
    inputs, outputs = FUNCTIONS[function]
    write_samples(tmp_path, inputs)
    prepared = prepare(worker, tmp_path, f"{NETS}:{function}")
    whole = {name: shape if len(shape) > 2 and name == "state" else (1, *shape) for name, (_, shape) in inputs.items()}
    assert {spec.name: spec.shape for spec in prepared["inputs"]} == whole
    assert {spec.name: spec.dtype for spec in prepared["inputs"]} == {n: dtype for n, (dtype, _) in inputs.items()}
    assert {spec.name: spec.shape for spec in prepared["outputs"]} == outputs
    assert prepared["tools"]["torch"]
    assert ("channels first" in " ".join(prepared["notes"])) == (function == "image")
    reference = OutputsReader(tmp_path / "reference")
    assert any(array.any() for array in reference.read("test", 2).values())
    for format in ("tflite", "onnx", "pt"):
        made = hop(worker, tmp_path, format, prepared, **({"opset": 17} if format == "onnx" else {}))
        assert made["sqnr_db"] > 100, format  # rounding of float32, no more
        assert {spec.name: spec.shape for spec in made["inputs"]} == whole, format
        assert {spec.name: spec.shape for spec in made["outputs"]} == outputs, format
        assert bool(made["notes"]) == (format == "onnx"), "only that the opset was raised"
        # Nothing of the machine that made it: not where the user's files lie, nor their names.
        assert NETS.stem.encode() not in (tmp_path / format / "model").read_bytes(), format


@pytest.mark.parametrize(
    ("form", "factory"), [("program", ""), ("weights", "image"), ("legacy", "image"), ("checkpoint", "image")]
)
def test_a_saved_model_answers_as_the_function_that_made_it(
    worker: Worker, tmp_path: Path, form: str, factory: str
) -> None:
    write_samples(tmp_path, IMAGE)
    worker.call("torch_nets:save", path=tmp_path / "saved", form=form)
    prepared = prepare(worker, tmp_path, "saved", factory=f"{NETS}:{factory}" if factory else "")
    assert [(spec.name, spec.shape) for spec in prepared["inputs"]] == [("image", (1, 3, 12, 12))]
    saved = OutputsReader(tmp_path / "reference").read("test", 1)["output"]
    prepare(worker, tmp_path, f"{NETS}:image")
    made = OutputsReader(tmp_path / "reference").read("test", 1)["output"]
    np.testing.assert_allclose(saved, made, rtol=1e-5, atol=1e-6)


def test_source_inputs_say_what_no_example_says(worker: Worker, tmp_path: Path) -> None:
    write_samples(tmp_path, {"left": ("float32", (8,)), "right": ("float32", (6,)), "mask": ("float32", (3,))})
    shapes = {"mask": (1, 3)}
    prepared = prepare(worker, tmp_path, f"{NETS}:two_inputs", shapes=shapes)
    assert [spec.name for spec in prepared["inputs"]] == ["left", "right", "mask"]
    assert [spec.name for spec in prepared["outputs"]] == ["second", "first", "attention"]


REFUSED = [
    ("module", "", "cannot load it"),
    ("other", "image", "its weights are not those of the module: it lacks first.weight"),
    ("evil", "image", "no weights can be read from it without running its code"),
    ("module", "image", "no weights can be read from it without running its code"),
]


@pytest.mark.parametrize(("form", "factory", "said"), REFUSED)
def test_a_saved_model_that_is_refused(worker: Worker, tmp_path: Path, form: str, factory: str, said: str) -> None:
    write_samples(tmp_path, IMAGE)
    worker.call("torch_nets:save", path=tmp_path / "saved", form=form)
    with pytest.raises(InputError) as caught:
        prepare(worker, tmp_path, "saved", factory=f"{NETS}:{factory}" if factory else "")
    assert caught.value.message.startswith(f"{tmp_path / 'saved'}: ")
    assert said in caught.value.message
    assert caught.value.hint
    assert not list(Path.cwd().glob("evil-was-run")), "no code of a pickle is run"


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("branching", "torch.export cannot take it: "),
        ("unnamed", "forward has no parameters with names"),
        ("half", "weight 'first.weight' is float16: the float model must be float32"),
        ("with_nan", "weight 'last.bias' holds 1 of 5 values that are NaN or infinite"),
        ("no_module", "no_module returned list"),
        ("raising", f"{NETS}:"),
        ("wrong_examples", "the example inputs do not fit `forward`: too many positional arguments"),
        ("gone", "has no function 'gone'"),
    ],
)
def test_a_function_that_is_refused(worker: Worker, tmp_path: Path, function: str, said: str) -> None:
    write_samples(tmp_path, {"x": ("float32", (4,))} if function in ("branching", "unnamed") else IMAGE)
    with pytest.raises(UsageError) as caught:
        prepare(worker, tmp_path, f"{NETS}:{function}")
    assert said in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_images_that_lie_channels_last(worker: Worker, tmp_path: Path) -> None:
    write_samples(tmp_path, {"image": ("float32", (12, 12, 3))})
    with pytest.raises(InputError) as caught:
        prepare(worker, tmp_path, f"{NETS}:image")
    assert "the model takes [-1, 3, 12, 12]" in caught.value.message
    assert "layout: nchw" in caught.value.hint


def test_what_a_function_makes_is_what_is_known_of_it(worker: Worker, tmp_path: Path) -> None:
    """Weights may lie anywhere and code in a neighbour: a change of either makes another source."""
    (tmp_path / "layers.py").write_text("import torch\n\nclass Net(torch.nn.Linear):\n    pass\n")
    (tmp_path / "net.py").write_text(
        "import numpy as np\nimport torch\nfrom layers import Net\n\ndef make():\n    net = Net(2, 1)\n"
        "    net.load_state_dict({k: torch.from_numpy(v) for k, v in np.load('W').items()})\n    return net\n".replace(
            "'W'", repr(str(tmp_path / "weights.npz"))
        )
    )

    def digest(weight: float) -> str:
        np.savez(tmp_path / "weights.npz", weight=np.full((1, 2), weight, np.float32), bias=np.ones(1, np.float32))
        with Worker() as fresh:  # each run of `deploy` has its own
            found: str = fresh.call(
                "pipeline.stages.torch_jobs:digest", model=tmp_path / "net.py:make", factory="", base=tmp_path
            )
        return found

    first = digest(1.0)
    assert digest(2.0) != first
    (tmp_path / "layers.py").write_text(
        "import torch\n\nclass Net(torch.nn.Linear):\n    def forward(self, x):\n        return -super().forward(x)\n"
    )
    assert digest(1.0) != first

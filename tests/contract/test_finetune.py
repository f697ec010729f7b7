"""Fine-tuning: what training imitates is what the file computes, runs repeat exactly, a killed one goes on."""

import dataclasses
import json
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConversionFailed, InputError
from pipeline.finetune.settings import Origin, Settings
from pipeline.quality.outputs import OutputsReader
from pipeline.samples import DataSpec
from pipeline.worker import Worker, WorkerDied
from targets.records import TensorSpec

SETTINGS = Settings(epochs=4, patience=4, batch_size=4, learning_rate=5e-3, held_out=0.25, seed=5)
BATCHES = 6  # 12 of the 16 samples: by two, because there are to be eight or nearly so
NETS = Path(__file__).parents[1] / "torch_nets.py"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Net:
    """A small classifier of one framework, and files beside it."""

    kind: str
    folder: Path
    model: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def output(self) -> str:
        return self.outputs[0].name


Made = tuple[Path, tuple[str, ...]]


@pytest.fixture(scope="module", params=["keras", "pytorch"])
def net(request: pytest.FixtureRequest, worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Net:
    return made_net(worker, tmp_path_factory.mktemp("finetune"), request.param)


def made_net(worker: Worker, folder: Path, kind: str) -> Net:
    shape = (3, 12, 12) if kind == "pytorch" else (8, 8, 3)
    random = np.random.default_rng(1)
    np.savez(folder / "samples.npz", image=random.normal(size=(16, *shape)).astype(np.float32))
    np.savez(folder / "test.npz", image=random.normal(size=(1, *shape)).astype(np.float32))
    np.save(folder / "labels.npy", random.integers(0, 5, 16))
    model = {"keras": folder / "net.keras", "keras_h5": folder / "net.h5", "pytorch": Path(f"{NETS}:image")}[kind]
    if kind != "pytorch":
        worker.call(f"source_models:{'keras_classifier' if kind == 'keras' else 'keras_h5'}", path=model)
    made = worker.call(
        "pipeline.stages.export_jobs:prepare", kind=kind, model=model, signature="", shapes={}, scratch=folder,
        calibrate=DataSpec(path="samples.npz"), test=DataSpec(path="test.npz"), base=folder,
    )  # fmt: skip
    return Net(kind=kind, folder=folder, model=model, inputs=made["inputs"], outputs=made["outputs"])


@pytest.fixture(scope="module")
def finetune(worker: Worker, net: Net) -> Callable[..., Made]:
    """Run the job; returns the folder with what it made, and its notes."""

    def run(checkpoint: str, *, by: Worker = worker, settings: Settings = SETTINGS, **more: Any) -> Made:
        return trained(by, net, checkpoint, settings=settings, **more)

    return run


def trained(worker: Worker, net: Net, checkpoint: str, *, settings: Settings = SETTINGS, **more: Any) -> Made:
    scratch = Path(tempfile.mkdtemp(dir=net.folder))
    made = worker.call(
        "pipeline.stages.finetune_jobs:finetune",
        more.get("report"),
        origin=Origin(
            kind=net.kind,
            model=more.get("model", net.model),
            factory="",
            base=net.folder,
            prepared=more.get("prepared", net.folder / "model"),
            inputs=net.inputs,
            outputs=net.outputs,
            scratch=scratch,
        ),
        data=DataSpec(path="samples.npz", truth=more.get("truth")),
        calibrate=DataSpec(path="samples.npz"),
        weight_bits=4,
        settings=settings,
        loss=more.get("loss", ""),
        part=more.get("part", 4),
        checkpoint=net.folder / f"checkpoint-{checkpoint}",
    )
    return scratch, made["notes"]


@pytest.fixture(scope="module")
def whole(finetune: Callable[..., Made]) -> Made:
    """An uninterrupted run without labels."""
    return finetune("whole")


def result(made: Path) -> tuple[str, dict[str, Any]]:
    """Ranges, and what the fine-tuned float model answers: two runs that agree in every bit of these are the same."""
    return (made / "learned").read_text(), OutputsReader(made / "reference").read("calibrate", 0)


def same(one: Path, other: Path) -> bool:
    (ranges, answers), (other_ranges, other_answers) = result(one), result(other)
    return ranges == other_ranges and all(np.array_equal(answers[name], other_answers[name]) for name in answers)


def test_a_killed_run_goes_on_and_ends_where_an_uninterrupted_one_does(finetune: Any, whole: Made) -> None:
    made, notes = whole
    assert notes[0].startswith("fine-tuned by distillation, without labels: 12 calibration samples, loss on 4 others ")
    with pytest.MonkeyPatch.context() as patch, Worker() as fresh:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))

        def kill(done: int, total: int) -> None:
            assert total == SETTINGS.epochs * BATCHES
            if done == 2 * BATCHES + 1:  # in the third epoch
                assert fresh._process is not None
                os.kill(fresh._process.pid, signal.SIGKILL)

        with pytest.raises(WorkerDied):
            finetune("kept", by=fresh, report=kill)
    steps: list[int] = []
    resumed, resumed_notes = finetune("kept", report=lambda done, total: steps.append(done))
    assert steps[0] == 2 * BATCHES + 1, "the two finished epochs are not done again"
    assert same(made, resumed)
    assert notes == resumed_notes


def test_another_seed_gives_another_result(finetune: Any, whole: Made) -> None:
    other, _ = finetune("seed", settings=dataclasses.replace(SETTINGS, seed=6))
    assert not same(whole[0], other)


def test_a_damaged_checkpoint_is_none_and_the_same_seed_repeats_exactly(finetune: Any, whole: Made, net: Net) -> None:
    (net.folder / "checkpoint-damaged").write_bytes(b"PK\x03\x04 cut off")
    again, _ = finetune("damaged")
    assert same(whole[0], again)


def test_parts_of_a_batch_teach_what_the_batch_does(finetune: Any, whole: Made, net: Net) -> None:
    parts, _ = finetune("parts", part=1)
    (_, answers), (_, others) = result(whole[0]), result(parts)
    np.testing.assert_allclose(answers[net.output], others[net.output], atol=2e-2)
    learned = [[row["high"] for row in json.loads((made / "learned").read_text())] for made in (whole[0], parts)]
    np.testing.assert_allclose(*learned, rtol=2e-2)


@pytest.mark.parametrize("kind", ["keras", "pytorch"])
def test_the_file_computes_what_training_imitated(worker: Worker, tmp_path: Path, kind: str) -> None:
    """Float source → fake-quantized → exported: the last hop must be within a step of the output."""
    model, shape, depthwise = Path(f"{NETS}:image"), (3, 12, 12), {"CONV_2D": "INT4", "DEPTHWISE_CONV_2D": "INT8"}
    weights = depthwise
    if kind == "keras":
        model, shape, weights = tmp_path / "net.keras", (8, 8, 3), {**depthwise, "FULLY_CONNECTED": "INT4"}
        worker.call("source_models:keras_classifier", path=model)
    np.savez(tmp_path / "s.npz", image=np.random.default_rng(1).normal(size=(16, *shape)).astype(np.float32))
    hop = worker.call(
        "finetune_hop:compare",
        kind=kind,
        model=model,
        samples=tmp_path / "s.npz",
        scratch=tmp_path,
        settings=dataclasses.replace(SETTINGS, epochs=2),
    )
    assert hop["weights"] == weights
    assert (hop["learned"], hop["lost"]) == (5, ())  # image, two convolutions, pooling or the last of them, scores
    assert hop["float_error"] < 1e-5, "the weights that went back compute what was trained"
    assert hop["rms_steps"] <= 0.5


def test_truths_are_trained_for(finetune: Any, whole: Made) -> None:
    taught, notes = finetune("truth", truth="labels.npy")
    assert notes[0].startswith("fine-tuned by distillation and the given truth: ")
    assert not same(whole[0], taught)


LOSSES = {
    "keras": "import tensorflow as tf\n\ndef small(outputs, truth):\n    return tf.reduce_mean(outputs[NAME] ** 2)\n",
    "pytorch": "\n\ndef small(outputs, truth):\n    assert truth.shape[0] == len(outputs[NAME])\n"
    "    return (outputs[NAME] ** 2).mean()\n",
}
WRONG = "\n\ndef wrong(outputs, truth):\n    return outputs['nothing']\n"


def test_a_loss_of_the_users_own(finetune: Any, whole: Made, net: Net) -> None:
    text = LOSSES[net.kind.partition("_")[0]].replace("NAME", repr(net.output)) + WRONG
    (net.folder / "loss.py").write_text(text)
    own, _ = finetune("own", loss="loss.py:small", truth="labels.npy")
    norms = [np.square(result(made)[1][net.output]).sum() for made in (whole[0], own)]
    assert norms[1] < norms[0]
    line = text[: text.index("outputs['nothing']")].count("\n") + 1
    with pytest.raises(InputError, match=rf"loss.py:{line}: .*KeyError"):
        finetune("wrong", loss="loss.py:wrong")


def test_a_model_that_cannot_be_trained_is_refused_with_advice(finetune: Any, worker: Worker, net: Net) -> None:
    more: dict[str, Any] = {"model": net.folder / "recurrent.keras"}
    if net.kind == "keras":
        worker.call("source_models:keras_recurrent", path=more["model"])
    else:
        more = {"prepared": net.folder / "gru.pt2"}
        worker.call("torch_nets:save_recurrent", path=more["prepared"])
    with pytest.raises(ConversionFailed, match="no layer to train") as caught:
        finetune("refused", **more)
    assert "without `qat`" in caught.value.hint


def test_keras_2_is_trained_by_keras_3(worker: Worker, tmp_path: Path) -> None:
    """Two seeds differ with the truth for a lesson; the answers keep their name."""
    net = made_net(worker, tmp_path, "keras_h5")
    lively = dataclasses.replace(SETTINGS, learning_rate=2e-2)
    one, notes = trained(worker, net, "one", settings=lively, truth="labels.npy")
    other, _ = trained(worker, net, "other", settings=dataclasses.replace(lively, seed=6), truth="labels.npy")
    assert "12 calibration samples" in notes[0]
    assert list(result(one)[1]) == ["scores"]
    assert not same(one, other)

"""Fine-tuning: what training imitates is what the file computes, runs repeat exactly, a killed one goes on."""

import dataclasses
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConversionFailed, InputError
from pipeline.finetune.settings import Settings
from pipeline.quality.outputs import OutputsReader
from pipeline.samples import DataSpec
from pipeline.worker import Worker, WorkerDied
from targets.records import TensorSpec

SETTINGS = Settings(epochs=4, patience=4, batch_size=4, learning_rate=5e-3, held_out=0.25, seed=5)
BATCHES = 6  # 12 of the 16 samples: by two, because there are to be eight or nearly so
INPUT = TensorSpec(name="image", shape=(1, 8, 8, 3), dtype="float32")
OUTPUT = TensorSpec(name="scores", shape=(1, 5), dtype="float32")


@pytest.fixture(scope="module")
def folder(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("finetune")
    worker.call("source_models:keras_classifier", path=made / "net.keras")
    random = np.random.default_rng(1)
    np.savez(made / "samples.npz", image=random.normal(size=(16, 8, 8, 3)).astype(np.float32))
    np.save(made / "labels.npy", random.integers(0, 5, 16))
    return made


Made = tuple[Path, tuple[str, ...]]


@pytest.fixture(scope="module")
def finetune(worker: Worker, folder: Path) -> Callable[..., Made]:
    """Run the job; returns the folder with what it made, and its notes."""

    def run(checkpoint: str, *, by: Worker = worker, settings: Settings = SETTINGS, **more: Any) -> Made:
        scratch = Path(tempfile.mkdtemp(dir=folder))
        made = by.call(
            "pipeline.stages.finetune_jobs:finetune",
            more.get("report"),
            model=folder / more.get("model", "net.keras"),
            data=DataSpec(path="samples.npz", truth=more.get("truth")),
            calibrate=DataSpec(path="samples.npz"),
            inputs=(INPUT,),
            outputs=(OUTPUT,),
            weight_bits=4,
            settings=settings,
            loss=more.get("loss", ""),
            base=folder,
            scratch=scratch,
            checkpoint=folder / f"checkpoint-{checkpoint}",
        )
        return scratch, made["notes"]

    return run


@pytest.fixture(scope="module")
def whole(finetune: Callable[..., Made]) -> Made:
    """An uninterrupted run without labels."""
    return finetune("whole")


def result(made: Path) -> tuple[str, dict[str, Any]]:
    """Ranges, and what the fine-tuned float model answers: two runs that agree in every bit of these are the same."""
    return (made / "learned").read_text(), OutputsReader(made / "reference").read("calibrate", 0)


def same(one: Path, other: Path) -> bool:
    (ranges, answers), (other_ranges, other_answers) = result(one), result(other)
    return ranges == other_ranges and np.array_equal(answers["scores"], other_answers["scores"])


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


def test_a_damaged_checkpoint_is_none_and_the_same_seed_repeats_exactly(
    finetune: Any, whole: Made, folder: Path
) -> None:
    (folder / "checkpoint-damaged").write_bytes(b"PK\x03\x04 cut off")
    again, _ = finetune("damaged")
    assert same(whole[0], again)


def test_the_file_computes_what_training_imitated(worker: Worker, folder: Path, tmp_path: Path) -> None:
    """Float source → fake-quantized → exported: the last hop must be within two steps of the output."""
    hop = worker.call(
        "finetune_hop:compare",
        model=folder / "net.keras",
        samples=folder / "samples.npz",
        scratch=tmp_path,
        settings=dataclasses.replace(SETTINGS, epochs=2),
    )
    assert hop["weights"] == {"CONV_2D": "INT4", "DEPTHWISE_CONV_2D": "INT8", "FULLY_CONNECTED": "INT4"}
    assert (hop["learned"], hop["lost"]) == (5, ())  # image, two convolutions, pooling, scores
    assert hop["worst_steps"] <= 2


def test_truths_are_trained_for(finetune: Any, whole: Made) -> None:
    taught, notes = finetune("truth", truth="labels.npy")
    assert notes[0].startswith("fine-tuned by distillation and the given truth: ")
    assert not same(whole[0], taught)


def test_a_loss_of_the_users_own(finetune: Any, whole: Made, folder: Path) -> None:
    (folder / "loss.py").write_text(
        "import tensorflow as tf\n\n"
        "def small(outputs, truth):\n    return tf.reduce_mean(outputs['scores'] ** 2)\n\n"
        "def wrong(outputs, truth):\n    return outputs['nothing']\n"
    )
    own, _ = finetune("own", loss="loss.py:small")
    norms = [np.square(result(made)[1]["scores"]).sum() for made in (whole[0], own)]
    assert norms[1] < norms[0]
    with pytest.raises(InputError, match=r"loss.py:7: .*KeyError"):
        finetune("wrong", loss="loss.py:wrong")


def test_a_model_that_cannot_be_trained_is_refused_with_advice(finetune: Any, worker: Worker, folder: Path) -> None:
    worker.call("source_models:keras_recurrent", path=folder / "recurrent.keras")
    with pytest.raises(ConversionFailed, match="no layer to train") as caught:
        finetune("refused", model="recurrent.keras")
    assert "without `qat`" in caught.value.hint

"""One input and one array that could be it need not share a name."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.samples import DataSpec, open_samples
from pipeline.samples.spec import ArrayTruth
from targets.records import TensorSpec

SIGNATURE = (TensorSpec(name="input_layer", shape=(-1, 4), dtype="float32"),)
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_the_only_array_is_the_only_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", image=ROWS, label=np.arange(3))
    spec = DataSpec(path="data.npz", truth=ArrayTruth(array="label"))
    samples = list(open_samples(spec, SIGNATURE, tmp_path))
    assert [sample.inputs["input_layer"].tolist() for sample in samples] == [[row.tolist()] for row in ROWS]


def test_two_candidates_are_not_guessed_between(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", image=ROWS, depth=ROWS)
    with pytest.raises(InputError, match="no array 'input_layer', but image, depth"):
        open_samples(DataSpec(path="data.npz"), SIGNATURE, tmp_path)

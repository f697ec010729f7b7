"""`.npz` and `.npy`: mapped where possible, aligned, and refused with a name."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError, UsageError
from pipeline.samples import DataSpec, open_samples
from pipeline.samples.array_file import open_arrays
from targets.records import TensorSpec

X = TensorSpec(name="x", shape=(1, 4), dtype="float32")
Y = TensorSpec(name="y", shape=(1, 2, 2), dtype="int32")


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 4), np.float32)


def failure(base: Path, signature=(X,), **spec) -> InputError:
    with pytest.raises(InputError) as caught:
        list(open_samples(DataSpec.model_validate(spec), signature, base))
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_several_inputs_and_truth_in_one_npz(tmp_path, save):
    x, y = rows(3), np.arange(12, dtype=np.int32).reshape(3, 2, 2)
    save(tmp_path / "set.npz", x=x, y=y, label=np.array([7, 8, 9]), other=np.zeros(1))
    spec = DataSpec.model_validate({"path": "set.npz", "truth": {"array": "label"}})
    samples = list(open_samples(spec, (X, Y), tmp_path))
    assert [sample.id for sample in samples] == ["set.npz[0]", "set.npz[1]", "set.npz[2]"]
    assert [int(sample.truth) for sample in samples] == [7, 8, 9]
    assert np.array_equal(np.concatenate([sample.inputs["x"] for sample in samples]), x)
    assert np.array_equal(samples[2].inputs["y"], y[2:])


def test_uncompressed_files_are_mapped_and_equal(tmp_path):
    arrays = {
        "a": rows(5),
        "f": np.asfortranarray(rows(5)),
        "empty_side": np.zeros((2, 0)),
        "b": np.array([True, False]),
    }
    np.savez(tmp_path / "set.npz", **arrays)
    opened = open_arrays(tmp_path / "set.npz")
    assert list(opened) == list(arrays)
    for name, array in arrays.items():
        assert np.array_equal(opened[name], array)
        assert opened[name].dtype == array.dtype
    assert isinstance(opened["a"], np.memmap)
    assert isinstance(opened["f"], np.memmap)


def test_npy_feeds_the_one_input(tmp_path):
    np.save(tmp_path / "x.npy", rows(2))
    assert len(list(open_samples(DataSpec(path="x.npy"), (X,), tmp_path))) == 2
    with pytest.raises(UsageError, match="2: x, y"):
        open_samples(DataSpec(path="x.npy"), (X, Y), tmp_path)


def test_missing_input_and_truth_arrays(tmp_path):
    np.savez(tmp_path / "s.npz", x=rows(2))
    error = failure(tmp_path, (X, Y), path="s.npz")
    assert "s.npz: holds no array 'y', but x" in error.message
    assert "x, y" in error.hint
    assert "holds no array 'label'" in failure(tmp_path, path="s.npz", truth={"array": "label"}).message


def test_first_axes_must_agree(tmp_path):
    np.savez(tmp_path / "s.npz", x=rows(3), y=np.zeros((2, 2, 2), np.int32))
    assert "s.npz: the first axes differ: x: 3, y: 2" in failure(tmp_path, (X, Y), path="s.npz").message
    np.savez(tmp_path / "t.npz", x=rows(3), label=np.zeros(4))
    assert "x: 3, label: 4" in failure(tmp_path, path="t.npz", truth={"array": "label"}).message
    np.save(tmp_path / "truth.npy", np.zeros(4))
    assert "truth.npy: 4 right answers for the 3" in failure(tmp_path, path="t.npz", truth="truth.npy").message


def test_truth_file_with_two_arrays(tmp_path):
    np.savez(tmp_path / "s.npz", x=rows(3))
    np.savez(tmp_path / "t.npz", a=np.zeros(3), b=np.zeros(3))
    assert "t.npz: holds 2 arrays: a, b" in failure(tmp_path, path="s.npz", truth="t.npz").message


@pytest.mark.parametrize("array", [np.float32(1), np.zeros((0, 4), np.float32)])
def test_no_samples(tmp_path, array):
    np.savez(tmp_path / "s.npz", x=array)
    assert "s.npz: array 'x' holds no samples" in failure(tmp_path, path="s.npz").message


def test_unusable_files_are_named(tmp_path):
    np.savez(tmp_path / "whole.npz", x=rows(100))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise.npz").write_bytes(b"not a zip")
    (tmp_path / "noise.npy").write_bytes(b"not an array")
    np.save(tmp_path / "whole.npy", rows(100))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:500])
    with zipfile.ZipFile(tmp_path / "nothing.npz", "w") as archive:
        archive.writestr("readme.txt", "no arrays here")
    for name in ("cut.npz", "noise.npz", "noise.npy", "cut.npy"):
        assert f"{name}: cannot be read as arrays" in failure(tmp_path, path=name).message
    assert "nothing.npz: holds no array" in failure(tmp_path, path="nothing.npz").message
    assert "gone.npz: there is no such" in failure(tmp_path, path="gone.npz").message


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_pickled_objects_are_never_loaded(tmp_path, save):
    save(tmp_path / "s.npz", x=np.array([{"a": 1}, None], dtype=object))
    assert "s.npz: cannot be read as arrays" in failure(tmp_path, path="s.npz").message


def test_one_list_of_steps_for_two_inputs_is_refused(tmp_path):
    np.savez(tmp_path / "s.npz", x=rows(3), y=np.zeros((3, 2, 2), np.int32))
    with pytest.raises(UsageError, match="the model has 2 inputs"):
        open_samples(DataSpec.model_validate({"path": "s.npz", "preprocess": [{"scale": 2}]}), (X, Y), tmp_path)
    with pytest.raises(UsageError, match="no input 'z'"):
        open_samples(DataSpec.model_validate({"path": "s.npz", "preprocess": {"z": []}}), (X, Y), tmp_path)
    spec = DataSpec.model_validate({"path": "s.npz", "preprocess": {"x": [{"scale": 2}]}})
    first = next(iter(open_samples(spec, (X, Y), tmp_path)))
    assert np.array_equal(first.inputs["x"][0], rows(3)[0] * 2)
    assert first.inputs["y"].sum() == 0


def test_states_and_scalars_have_no_batch_axis(tmp_path):
    signature = (
        TensorSpec(name="sound", shape=(1, 6), dtype="float32"),
        TensorSpec(name="state", shape=(2, 1, 3), dtype="float32"),
        TensorSpec(name="rate", shape=(), dtype="int64"),
    )
    sound, state = np.random.default_rng(0).random((4, 6), np.float32), np.ones((4, 2, 1, 3), np.float32)
    np.savez(tmp_path / "s.npz", sound=sound, state=state, rate=np.full(4, 16000))
    for sample in open_samples(DataSpec(path="s.npz"), signature, tmp_path):
        assert [sample.inputs[name].shape for name in ("sound", "state", "rate")] == [(1, 6), (2, 1, 3), ()]
    np.savez(tmp_path / "s.npz", sound=sound[:, None], state=state, rate=np.full(4, 16000))
    first = next(iter(open_samples(DataSpec(path="s.npz"), signature, tmp_path)))
    assert np.array_equal(first.inputs["sound"], sound[:1])


@pytest.mark.parametrize("first_axis", [1, -1])
def test_a_batch_of_several_is_refused_also_where_the_batch_is_free(tmp_path, first_axis):
    np.save(tmp_path / "s.npy", np.zeros((5, 3, 4), np.float32))
    signature = (TensorSpec(name="x", shape=(first_axis, 4), dtype="float32"),)
    assert "s.npy[0]: input 'x' has a batch axis of 3" in failure(tmp_path, signature, path="s.npy").message


def test_an_entry_that_is_shorter_than_its_header_says(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, rows(2))
    with zipfile.ZipFile(tmp_path / "s.npz", "w") as archive:
        archive.writestr("x.npy", buffer.getvalue()[:-16])
        archive.writestr("y.npy", buffer.getvalue())
    assert "s.npz: cannot be read as arrays: x.npy is shorter" in failure(tmp_path, path="s.npz").message

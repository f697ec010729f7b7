"""What every sample is checked for, what is noticed about a set, and that two sets are disjoint."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from pipeline.errors import InputError, UsageError
from pipeline.samples import DataSection, DataSpec, check_disjoint, open_samples
from pipeline.samples.checks import fit
from pipeline.samples.sample import digest_arrays
from targets.records import TensorSpec


def tensor(shape: tuple[int, ...], dtype: str = "float32", name: str = "x") -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype)


def open_array(base: Path, array: np.ndarray, spec: TensorSpec, **more):
    np.save(base / "set.npy", array)
    return open_samples(DataSpec.model_validate({"path": "set.npy", **more}), (spec,), base)


def refused(base: Path, array: np.ndarray, spec: TensorSpec) -> InputError:
    with pytest.raises(InputError) as caught:
        list(open_array(base, array, spec))
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_value_is_named_with_its_place(tmp_path, bad):
    array = np.random.default_rng(0).random((5, 2, 3)).astype(np.float32)
    array[3, 1, 2] = bad
    message = refused(tmp_path, array, tensor((1, 2, 3))).message
    assert message == f"set.npy[3]: input 'x' holds {np.float32(bad)} at [0, 1, 2]"


def test_nan_is_found_by_the_summary_too(tmp_path):
    with pytest.raises(InputError, match=r"set\.npy\[0\]"):
        open_array(tmp_path, np.full((2, 3), np.nan, np.float32), tensor((1, 3))).summary()


@pytest.mark.parametrize(
    ("have", "want", "hint"),
    [
        ((2, 8, 8, 3), (1, 4, 4, 3), "resize: [4, 4]"),
        ((2, 8, 8, 3), (1, 8, 8, 1), "grayscale"),
        ((2, 8, 8, 3), (1, 3, 8, 8), "layout: nchw"),
        ((2, 8), (1, 8, 8), "number of axes"),
        ((2, 8), (4, 8), "batches of 4"),
        ((2, 8), (1, 9), "preprocess"),
    ],
)
def test_a_wrong_shape_names_both_shapes_and_the_remedy(tmp_path, have, want, hint):
    error = refused(tmp_path, np.random.default_rng(0).random(have).astype(np.float32), tensor(want))
    assert f"set.npy[0]: input 'x' is {[1, *have[1:]]}, the model takes {list(want)}" in error.message
    assert hint in error.hint


def test_free_dimensions_take_anything(tmp_path):
    [first, _] = open_array(
        tmp_path, np.random.default_rng(0).random((2, 5, 7)).astype(np.float32), tensor((-1, -1, 7))
    )
    assert first.inputs["x"].shape == (1, 5, 7)


DTYPES = ["float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"]


@given(
    hnp.arrays(st.sampled_from(DTYPES).map(np.dtype), (1, 3), elements={"allow_nan": False, "allow_infinity": False}),
    st.sampled_from(DTYPES),
)
def test_fitting_never_changes_a_value_beyond_float_precision(array, wanted):
    try:
        fitted, _ = fit("s", {"x": array}, (tensor((1, 3), wanted),))
    except InputError as error:
        assert error.message.startswith("s: input 'x' is ")
        same_kind = np.dtype(wanted).kind == array.dtype.kind
        fits = same_kind and np.dtype(wanted).itemsize >= array.dtype.itemsize
        assert not fits, "a type that holds every value was refused"
        return
    assert fitted["x"].dtype == wanted
    if np.dtype(wanted).kind == "f":
        assert array.dtype.kind == "f"
        precision, smallest = np.finfo(wanted).eps, float(np.finfo(wanted).tiny)
        assert np.allclose(fitted["x"].astype(np.float64), array.astype(np.float64), rtol=precision, atol=smallest)
    else:
        assert np.array_equal(fitted["x"].astype(np.int64), array.astype(np.int64))


def test_float64_is_taken_and_noted(tmp_path):
    samples = open_array(tmp_path, np.random.default_rng(0).random((3, 4)), tensor((1, 4)))
    assert samples.summary().findings == ("input 'x' is converted from float64 to float32",)
    assert next(iter(samples)).inputs["x"].dtype == np.float32


def test_integers_become_floats_only_when_told(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4), dtype=np.uint8)
    error = refused(tmp_path, pixels, tensor((1, 4)))
    assert "set.npy[0]: input 'x' is uint8, the model takes float32" in error.message
    assert "scale: 1/255" in error.hint
    told = open_array(tmp_path, pixels, tensor((1, 4)), preprocess=[{"scale": "1/255"}])
    assert next(iter(told)).inputs["x"].max() <= 1


def test_floats_never_become_integers_unasked(tmp_path):
    error = refused(tmp_path, np.ones((2, 4), np.float64), tensor((1, 4), "int8"))
    assert "is float64, the model takes int8" in error.message


def test_constant_samples(tmp_path):
    array = np.random.default_rng(0).random((4, 3)).astype(np.float32)
    array[2] = 5
    assert open_array(tmp_path, array, tensor((1, 3))).summary().findings == ("1 constant samples: set.npy[2]",)
    with pytest.raises(InputError, match=r"set\.npy: every sample is constant, such as set\.npy\[0\]"):
        open_array(tmp_path, np.zeros((4, 3), np.float32), tensor((1, 3))).summary()
    # A model of one number has nothing that could vary within a sample.
    assert open_array(tmp_path, np.zeros((1, 1), np.float32), tensor((1, 1))).summary().findings == ()


def test_duplicates_are_named_and_long_lists_are_cut(tmp_path):
    row = np.random.default_rng(0).random((1, 3)).astype(np.float32)
    [finding] = open_array(tmp_path, np.repeat(row, 9, axis=0), tensor((1, 3))).summary().findings
    assert finding.startswith("8 duplicate samples: set.npy[1] = set.npy[0], ")
    assert finding.endswith(" and 3 more")


def test_a_range_of_pixels_is_reported(tmp_path):
    array = np.random.default_rng(0).random((3, 4)).astype(np.float32) * 100
    assert open_array(tmp_path, array, tensor((1, 4))).summary().findings == ()
    array[0, 0] = 255
    [finding] = open_array(tmp_path, array, tensor((1, 4))).summary().findings
    assert finding == "input 'x': values reach 255: is `scale: 1/255` missing?"
    for factor, said in ((257, "values reach 65535: is `scale: 1/65535` missing?"), (1 / 255**2, "scaled twice?")):
        [finding] = open_array(tmp_path, array * np.float32(factor), tensor((1, 4))).summary().findings
        assert finding.endswith(said)


def test_nan_in_the_truth(tmp_path):
    np.save(tmp_path / "t.npy", np.array([1.0, np.nan]))
    samples = open_array(
        tmp_path, np.random.default_rng(0).random((2, 3)).astype(np.float32), tensor((1, 3)), truth="t.npy"
    )
    with pytest.raises(InputError, match=r"set\.npy\[1\]: the truth holds NaN"):
        list(samples)


def test_the_summary_is_stable_and_tells_sets_apart(tmp_path):
    array = np.random.default_rng(0).random((6, 3)).astype(np.float32)

    def summary(values, **more):
        return open_array(tmp_path, values, tensor((1, 3)), **more).summary()

    whole = summary(array)
    assert whole == summary(array)
    assert (whole.count, whole.sample_ids[5], whole.path) == (6, "set.npy[5]", "set.npy")
    assert len({whole.digest, summary(array[::-1]).digest, summary(array[:5]).digest, summary(array * 2).digest}) == 4
    np.save(tmp_path / "a.npy", np.arange(6))
    np.save(tmp_path / "b.npy", np.arange(6) + 1)
    assert len({whole.digest, *(summary(array, truth=file).digest for file in ("a.npy", "b.npy"))}) == 3
    scaled = summary(array, preprocess=[{"scale": 1}])
    assert scaled.digest == whole.digest
    assert scaled.preprocess != whole.preprocess


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 5))
def test_limit_takes_a_seeded_subset_in_order(tmp_path_factory, count, limit, seed):
    base = tmp_path_factory.mktemp("limit")
    array = np.arange(count, dtype=np.float32)[:, None] + [[0, 0.5]]
    values = [
        [float(sample.inputs["x"][0, 0]) for sample in open_array(base, array, tensor((1, 2)), limit=limit, seed=seed)]
        for _ in range(2)
    ]
    assert values[0] == values[1] == sorted(set(values[0]))
    assert len(values[0]) == min(count, limit)


def test_memory_is_flat_in_the_number_of_samples(tmp_path):
    def peak(count: int) -> int:
        big = np.lib.format.open_memmap(tmp_path / "big.npy", "w+", np.float32, (count, 100_000))
        big[:] = np.arange(count, dtype=np.float32)[:, None]
        big[:, 0] = -1
        big.flush()
        samples = open_samples(DataSpec(path="big.npy"), (tensor((1, 100_000)),), tmp_path)
        tracemalloc.start()
        samples.summary()
        for _ in samples:
            pass
        reached = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return reached

    assert peak(200) < peak(10) + 400_000  # one sample is 400 kB; 190 more would be 76 MB


def test_a_file_that_changes_during_a_run(tmp_path):
    array = np.random.default_rng(0).random((2, 3)).astype(np.float32)
    samples = open_array(tmp_path, array, tensor((1, 3)))
    samples.summary()
    with (tmp_path / "set.npy").open("r+b") as file:
        file.seek(-4, 2)
        file.write(np.float32(9).tobytes())
    with pytest.raises(InputError, match=r"set\.npy\[1\]: changed between two passes"):
        list(samples)


def test_shared_samples_are_refused_by_both_names(tmp_path):
    array = np.random.default_rng(0).random((6, 3)).astype(np.float32)
    np.save(tmp_path / "cal.npy", array[:4])
    np.save(tmp_path / "test.npy", array[3:])
    np.save(tmp_path / "clean.npy", array[4:])
    digests = {
        name: open_samples(DataSpec(path=f"{name}.npy"), (tensor((1, 3)),), tmp_path).digests()
        for name in ("cal", "test", "clean")
    }
    check_disjoint(digests["cal"], digests["clean"])
    with pytest.raises(InputError, match=r"calibration sample cal\.npy\[3\] is the test sample test\.npy\[0\]"):
        check_disjoint(digests["cal"], digests["test"])


@given(hnp.arrays(np.float32, 4), hnp.arrays(np.float32, 4))
def test_digests_tell_arrays_apart(first, second):
    assert (digest_arrays({"a": first}) == digest_arrays({"a": second})) == (first.tobytes() == second.tobytes())
    assert digest_arrays({"a": first}) != digest_arrays({"b": first})
    assert digest_arrays({"a": first}) != digest_arrays({"a": first.reshape(2, 2)})
    assert digest_arrays({"a": first}) != digest_arrays({"a": first.view(np.int32)})
    assert digest_arrays({"a": first, "b": second}) == digest_arrays({"b": second, "a": first})


def test_a_path_of_no_known_kind(tmp_path):
    (tmp_path / "data.json").write_text("[]")
    with pytest.raises(UsageError, match=r"data\.json: samples of this kind"):
        open_samples(DataSpec(path="data.json"), (tensor((1, 3)),), tmp_path)
    with pytest.raises(InputError, match="gone: there is no such file or folder"):
        open_samples(DataSpec(path="gone"), (tensor((1, 3)),), tmp_path)


def test_the_data_section_makes_two_specs():
    section = DataSection.model_validate(
        {
            "calibrate": {"path": "c", "limit": 10},
            "test": "t",
            "preprocess": [{"scale": "1/255"}],
            "truth": {"image": [{"scale": "1/255"}]},
        }
    )
    calibrate, test = section.spec("calibrate"), section.spec("test")
    assert (calibrate.path, calibrate.limit, calibrate.truth) == ("c", 10, None)
    assert (test.path, test.limit) == ("t", None)
    assert test.truth == section.truth
    assert calibrate.preprocess == test.preprocess
    assert DataSection.model_validate(section.model_dump()) == section


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"truth": 5}, "should be a path, folders, next-token"),
        ({"truth": {"x": 1}}, "should be a path, folders, next-token"),
        ({"truth": {"image": [{"scael": 1}]}}, "did you mean `scale`?"),
        ({"preprocess": {"x": [{"scael": 1}]}}, "did you mean `scale`?"),
        ({"limit": 0}, "greater than 0"),
        ({"pth": "x"}, "Extra inputs"),
    ],
)
def test_wrong_specs_have_one_clear_error(wrong, message):
    with pytest.raises(ValidationError) as caught:
        DataSpec.model_validate({"path": "p", **wrong})
    [only] = caught.value.errors()
    assert message in only["msg"]

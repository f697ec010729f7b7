"""Sketches: whatever the order, the chunks and the merging, the same values give the same sketch, to the last count."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.calibration.accumulate import Accumulator, Binner, Counted
from pipeline.calibration.sketch import Sketch, bucket_edges, clipped, merged
from pipeline.calibration.sketch_file import SketchFile, merge_files, read_sketches
from pipeline.errors import InputError

LARGEST = float(np.finfo(np.float32).max)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
VALUES = arrays.arrays(np.float32, st.integers(1, 200), elements=FINITE)


def sketch_of(*parts: np.ndarray) -> Sketch:
    binner, accumulator = Binner(), Accumulator()
    for part in parts:
        accumulator.add(binner.count(part))
    return accumulator.sketch()


@given(VALUES, st.randoms(use_true_random=False), st.lists(st.integers(0, 200), max_size=5))
def test_order_chunking_and_merging_change_nothing(values, random, cuts):
    whole = sketch_of(values)
    shuffled = np.array(random.sample(list(values), len(values)), np.float32)
    parts = [part for part in np.split(shuffled, sorted(cut % len(values) for cut in cuts)) if part.size]
    assert sketch_of(*parts) == whole
    sketches = [sketch_of(part) for part in parts]
    random.shuffle(sketches)
    assert merged(sketches) == whole
    assert merged([merged(sketches[:1]), *sketches[1:]]) == whole


@given(VALUES)
def test_counts_and_extremes_are_exact(values):
    sketch = sketch_of(values)
    assert sketch.total == values.size
    assert (sketch.low, sketch.high) == (values.min(), values.max())
    start, end = bucket_edges(sketch.ordinals)
    for low, high, count in zip(start, end, sketch.counts, strict=True):
        # −0 and magnitudes under 1e-40 are in the bucket of zero, which is a point.
        shrunk = np.where(np.abs(values) < 9.2e-41, 0, values.astype(np.float64))
        inside = (shrunk >= low) & (shrunk < high) if low >= 0 < high else (shrunk > low) & (shrunk <= high)
        if max(abs(low), abs(high)) == LARGEST:  # the outermost buckets end at the largest float, and have it
            inside |= (shrunk == low) | (shrunk == high)
        assert np.count_nonzero(inside if low < high else shrunk == low) == count


@given(VALUES, FINITE, FINITE)
def test_what_relu_and_clip_make_follows_exactly(values, one, other):
    low, high = sorted((one, other))
    assert clipped(sketch_of(values), low, high) == sketch_of(np.clip(values, np.float32(low), np.float32(high)))
    assert clipped(sketch_of(values), 0, np.inf) == sketch_of(np.maximum(values, np.float32(0)))


def test_large_arrays_are_counted_in_pieces():
    values = np.random.default_rng(0).normal(size=700_001).astype(np.float32)
    assert sketch_of(values) == merged([sketch_of(part) for part in np.array_split(values, 7)])


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_seen(bad):
    values = np.array([1, bad, -2], np.float32)
    assert not Binner().count(values).finite
    assert Binner().count(np.array([3.4e38, -3.4e38, 0], np.float32)).finite


def test_zeros_of_either_sign_are_counted_as_one():
    for values in ([-0.0], [-0.0, 0.0], [-0.0, 1.5], [-1.5, -0.0]):
        sketch = sketch_of(np.array(values, np.float32))
        assert sketch == sketch_of(np.array(values, np.float32) + np.float32(0))
        assert sketch.total == len(values)


def test_more_values_than_32_bits_count():
    zeros = Counted(binned=np.array([3_000_000_000] + [0] * 63), size=3_000_000_000, low=0.0, high=0.0)
    accumulator = Accumulator()
    for _ in range(3):
        accumulator.add(zeros)
    assert accumulator.sketch().total == 9_000_000_000


def test_memory_does_not_grow_with_the_samples():
    random = np.random.default_rng(0)
    binner, accumulator = Binner(), Accumulator()
    sizes = []
    for number in range(2_000):
        values = random.normal(size=512).astype(np.float32)
        accumulator.add(binner.count(values))
        if number in (99, 1_999):
            sizes.append(accumulator._counts.nbytes)
    # Only rarer magnitudes near zero are new: 4 to 5 powers of two for 20 times the values, of either sign.
    assert sizes[1] - sizes[0] <= 2 * 6 * 512
    assert accumulator.sketch().total == 2_000 * 512


def file_of(sketches, samples, **changes):
    return SketchFile(**{"format": "onnx", "model": "ab", "samples": samples, "sketches": sketches, **changes})


@settings(deadline=None)  # the first time imports zlib and makes folders
@given(st.lists(VALUES, min_size=1, max_size=3))
def test_a_file_gives_back_what_went_in_and_merges_in_any_order(tmp_path_factory, batches):
    path = tmp_path_factory.mktemp("sketches") / "a.sketch"
    files = {
        str(number): file_of({"t": sketch_of(batch), "u": sketch_of(-batch)}, (f"{number:064x}",))
        for number, batch in enumerate(batches)
    }
    merged_file = merge_files(files)
    merged_file.write(path)
    again = read_sketches(path)
    assert again.content() == merged_file.content()
    assert again.sketches["t"] == sketch_of(*batches)
    assert merge_files(dict(reversed(files.items()))).digest == merged_file.digest


def test_merging_refuses_other_models_and_shared_samples():
    one = file_of({"t": sketch_of(np.float32([1]))}, ("aa", "bb"))
    with pytest.raises(InputError, match="x is not of the same float model as d"):
        merge_files({"d": one, "x": file_of(one.sketches, ("cc",), model="cd")})
    with pytest.raises(InputError, match="x and d share 1 samples, such as bb"):
        merge_files({"d": one, "x": file_of(one.sketches, ("bb", "cc"))})


def test_damage_is_noticed(tmp_path):
    path = tmp_path / "a.sketch"
    file_of({"t": sketch_of(np.float32([1, 2, 3]))}, ("aa",)).write(path)
    data = path.read_bytes()
    for damaged in (b"", data[:-4], data[:40], data.replace(b"edge", b"egde"), data[:30] + b"\0\0" + data[32:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"damaged|no file of calibration sketches"):
            read_sketches(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_sketches(tmp_path / "absent.sketch")

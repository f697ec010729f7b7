"""Tensor files between our C programs and the host: what goes in comes out, and damage is refused on both sides."""

import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from shells import require_compiler

from targets.native import tensors

_FUZZ = Path(__file__).parents[2] / "native" / "fuzz_tensors.c"
_TIMES = 200_000

dtypes = st.sampled_from(
    ["bool", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", ">f4", ">i2"]
).map(np.dtype)
arrays = stn.arrays(dtypes, stn.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
names = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=12)


@given(st.dictionaries(names, arrays, max_size=4))
def test_what_goes_in_comes_out(sample: dict[str, np.ndarray]) -> None:
    found = tensors.decode(tensors.encode(sample))
    assert [names for names, _ in found] == [[name] for name in sample]
    for (_, array), original in zip(found, sample.values(), strict=True):
        assert array.dtype == original.dtype.newbyteorder("<") and array.shape == original.shape
        assert array.tobytes() == original.astype(array.dtype).tobytes()


@given(st.data())
def test_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    file = bytearray(tensors.encode({"x": np.arange(6, dtype=np.int16).reshape(2, 3), "y": np.zeros(2)}))
    place = data.draw(st.integers(0, len(file) - 1))
    file[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    try:
        tensors.decode(bytes(file))
    except ValueError as fault:
        assert str(fault)


@pytest.mark.parametrize("array", [np.array(["text"]), np.zeros((1,) * 9), np.zeros(2, np.complex64)])
def test_what_has_no_place_in_the_file_is_refused(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="x"):
        tensors.encode({"x": array})


def test_the_programs_parser_reads_nothing_beyond_a_damaged_file(tmp_path: Path) -> None:
    """Two hundred thousand damaged files, under the sanitizers: every access out of bounds would end it."""
    require_compiler(platform.machine())
    program, sample = tmp_path / "fuzz", tmp_path / "sample"
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = ["cc", "-std=c11", "-O1", "-g", *sanitizers, "-Wno-unused-function", "-o", str(program), str(_FUZZ)]
    subprocess.run([*command, "-ldl", "-lm"], check=True)
    ends = {"x": np.arange(12, dtype=np.float32).reshape(3, 4), "empty": np.zeros((0, 3)), "flag": np.array(True)}
    sample.write_bytes(tensors.encode(ends))
    done = subprocess.run([str(program), str(sample), str(_TIMES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    refused, taken = map(int, done.stdout.split())
    assert refused > _TIMES // 4 and taken > _TIMES // 20 and refused + taken == _TIMES

"""What no Android build writes is refused by name, before anything is unpacked; any bytes give an error or an app."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import apps
import pytest
from apps import MODEL, File, good_aab, good_apk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.appcheck import Asked, check, read_app
from pipeline.errors import InputError


def twice(data: bytes) -> bytes:
    with zipfile.ZipFile(out := io.BytesIO(data), "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(MODEL, b"another")
    return out.getvalue()


def encrypted(data: bytes) -> bytes:
    """The flag set in the directory's entry of the model."""
    place = data.rindex(b"PK\x01\x02", 0, data.rindex(MODEL.encode()))
    return data[: place + 8] + struct.pack("<H", 1) + data[place + 10 :]


def named(name: str) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(MODEL.encode(), name.encode())


def packed_by(method: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        place = data.rindex(b"PK\x01\x02", 0, data.rindex(MODEL.encode()))
        return data[: place + 10] + struct.pack("<H", method) + data[place + 12 :]

    return change


def bomb(data: bytes) -> bytes:
    with zipfile.ZipFile(out := io.BytesIO(data), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/zeros.tflite", bytes(101 * 10**6))
    return out.getvalue()


def overlapping(data: bytes) -> bytes:
    """The last entry of the directory begins where the first does."""
    place = data.rindex(b"PK\x01\x02")
    return data[: place + 42] + struct.pack("<I", 0) + data[place + 46 :]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (twice, "stands twice"),
        (encrypted, "is encrypted"),
        (named("../etc/net.onnx"), "leaves the archive"),
        (named("/etc/netw1.onnx"), "leaves the archive"),
        (named("as\0ets/net.onnx"), "leaves the archive"),
        (packed_by(12), "packed by method 12"),
        (bomb, "zip bomb: 98.2 kB that unpack to 101 MB"),
        (overlapping, "overlaps|header of"),
        (lambda data: data[:-30], "no whole zip archive"),
        (lambda data: b"", "no whole zip archive"),
        (lambda data: b"<!DOCTYPE html>" * 100, "no whole zip archive"),
        (lambda data: apps.zipped({"a.txt": File(b"a")}), "no Android app"),
        (lambda data: apps.zipped({"base.apk": File(b"a")}), "an archive of APKs"),
    ],
    ids=[
        "twice",
        "encrypted",
        "parent",
        "root",
        "nul",
        "method",
        "bomb",
        "overlap",
        "cut",
        "empty",
        "html",
        "zip",
        "apks",
    ],
)
def test_refused_by_name(tmp_path: Path, change: Callable[[bytes], bytes], said: str) -> None:
    path = tmp_path / "app.apk"
    path.write_bytes(change(apps.zipped(good_apk().files)))
    with pytest.raises(InputError, match=said) as refused:
        read_app(path)
    assert refused.value.hint


def test_a_missing_app_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_app(tmp_path / "app.apk")


def test_zip64_is_read(tmp_path: Path) -> None:
    path = tmp_path / "app.apk"
    with zipfile.ZipFile(path, "w") as archive:
        for name, file in good_apk().files.items():
            with archive.open(name, "w", force_zip64=True) as inside:
                inside.write(file.content)
    assert [model.entry.name for model in read_app(path).models] == [MODEL]


def test_a_model_that_does_not_unpack_blocks(tmp_path: Path) -> None:
    data = bytearray(apps.zipped(good_apk().with_files({MODEL: File(apps.onnx_model(), stored=False)}).files))
    place = data.index(zlib.compress(apps.onnx_model(), wbits=-15)[:20])
    data[place + 5 : place + 9] = b"\xff\xff\xff\xff"
    (tmp_path / "app.apk").write_bytes(data)
    checked = check(read_app(tmp_path / "app.apk"), Asked())
    assert "model-unreadable" in {f.rule for f in checked.findings if f.severity == "blocking"}


@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([good_apk(), good_aab()]),
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=6)), min_size=1, max_size=8),
    st.integers(0, 400),
)
def test_a_damaged_app_is_refused_or_judged(
    tmp_path: Path, app: apps.Built, damage: list[tuple[int, bytes]], cut: int
) -> None:
    # Compact: alignment's zeros would take most of the damage.
    data = bytearray(apps.zipped({name: File(file.content, file.stored) for name, file in app.files.items()}))
    for place, replaced in damage:
        place %= len(data)
        data[place : place + len(replaced)] = replaced
    path = tmp_path / "app.apk"
    path.write_bytes(bytes(data[: len(data) - cut if cut < 100 else len(data)]))
    try:
        checked = check(read_app(path), Asked())
    except InputError as refused:
        assert refused.hint
    else:
        assert checked.status in ("pass", "fail", "inconclusive")

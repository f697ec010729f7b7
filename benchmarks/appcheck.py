"""`deploy check` on an app of 100 MB, whole process, against reading and hashing the same file: at most 2 s.

The app is like a real one: half of it a stored model, the rest compressed libraries for two ABIs, assets and byte code.
It is the worst case too: no library has a runtime's name, so all of them are searched for one. What reading costs on
this machine is the peer: the ratio says how much the judging adds.
"""

import hashlib
import random
import struct
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.pairs import Row, absent, at_most, deploy, in_turns, main, middle, wall_s

_BAR_MS = 2000.0
_MODEL_BYTES, _LIBRARY_BYTES, _ASSET_BYTES, _ASSETS = 50 * 10**6, 30 * 10**6, 10**4, 1000
_SHARE = 0.6  # of a library that is noise: they deflate to about that


def rows(pairs: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "app.apk"
        _write(path)
        size_mb = path.stat().st_size / 1e6
        command = [*deploy(), "check", "--apk", str(path)]
        # 1: the app has models of no release's; it is judged all the same.
        codes = (0, 1, 4)
        wall_s(command, codes=codes), _read_ms(path)
        found = in_turns({"check": lambda: wall_s(command, codes=codes) * 1000, "read": lambda: _read_ms(path)}, pairs)
        if not 90 < size_mb < 110:
            yield absent("check of 100 MB", "ms", f"the app came out as {size_mb:.0f} MB")
            return
        yield at_most(f"check of {size_mb:.0f} MB", middle(found["check"]), "ms", _BAR_MS, middle(found["read"]))


def _read_ms(path: Path) -> float:
    started = time.perf_counter()
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")
    return (time.perf_counter() - started) * 1000


def _write(path: Path) -> None:
    noise = random.Random(0)
    with zipfile.ZipFile(path, "w", compresslevel=1) as archive:
        archive.writestr("AndroidManifest.xml", bytes(1000))
        archive.writestr("classes.dex", noise.randbytes(4 * 10**6) + bytes(4 * 10**6), zipfile.ZIP_DEFLATED)
        archive.writestr("assets/net.tflite", b"\x1c\0\0\0TFL3" + noise.randbytes(_MODEL_BYTES))
        for abi, bits, machine in (("arm64-v8a", 2, 183), ("armeabi-v7a", 1, 40)):
            head = (
                b"\x7fELF"
                + bytes((bits, 1, 1))
                + bytes(9)
                + struct.pack("<HH", 3, machine)
                + bytes(100)
                + b"\0VERS_1.29.0\0"
            )
            random_bytes = int(_LIBRARY_BYTES * _SHARE)
            content = head + noise.randbytes(random_bytes) + bytes(_LIBRARY_BYTES - random_bytes)
            archive.writestr(f"lib/{abi}/libapp.so", content, zipfile.ZIP_DEFLATED)
        for number in range(_ASSETS):
            archive.writestr(f"assets/{number}.bin", noise.randbytes(_ASSET_BYTES // 2), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main(rows, doc=__doc__, pairs=7)

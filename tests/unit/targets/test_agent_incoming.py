"""Files as the agent takes them: whole, in frames, interrupted, damaged."""

import os
import shutil
import time
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import bsdiff4
import pytest
from agent_talk import Talk
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.agent.edge.delta import DEFLATED, HEADER, MAX_FRAME_BYTES, PATCH, PLAIN, add_bytes, patched
from targets.agent.edge.wire import WIRE, Refused

CONTENT = os.urandom(300_000)
DIGEST = sha256(CONTENT).hexdigest()
FILE = {"sha256": DIGEST, "size_bytes": len(CONTENT)}


def started(root: Path) -> Talk:
    agent = Talk(root)
    agent.ask("hello", wire=list(WIRE))
    return agent


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    agent = started(tmp_path)
    yield agent
    agent.end()


def live(root: Path) -> list[Path]:
    return list((root / "blobs" / "sha256").iterdir())


def test_a_file_has_its_name_only_when_it_hashes(talk: Talk, tmp_path: Path) -> None:
    damaged = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    assert talk.send(damaged, **FILE)["error"]["code"] == "hash-mismatch"
    assert talk.send(CONTENT[:-1], **FILE)["error"]["code"] == "agent"
    assert live(tmp_path) == [] and not list(tmp_path.rglob("*.part"))
    assert "ok" in talk.send(CONTENT, **FILE)
    (blob,) = live(tmp_path)
    assert blob.read_bytes() == CONTENT and blob.stat().st_mode & 0o777 == 0o644
    assert talk.ask("have", blobs={DIGEST: len(CONTENT)})["ok"]["present"] == [DIGEST]
    assert talk.ask("have", blobs={DIGEST: len(CONTENT) + 1})["ok"]["present"] == []


@pytest.mark.parametrize("how", ["link lost", "agent killed"])
def test_what_had_come_is_gone_on_with(tmp_path: Path, how: str) -> None:
    agent = started(tmp_path)
    assert agent.process.stdin
    agent.start_sending(CONTENT[:200_000], wire_bytes=len(CONTENT), **FILE)
    if how == "link lost":
        agent.end()
    else:
        end = time.monotonic() + 10
        while not any(part.stat().st_size == 200_000 for part in tmp_path.rglob("*.part")):
            assert time.monotonic() < end
        agent.process.kill()
        agent.end()
    assert live(tmp_path) == []
    again = started(tmp_path)
    assert again.ask("have", blobs={DIGEST: len(CONTENT)})["ok"]["held"] == {
        DIGEST: [200_000, sha256(CONTENT[:200_000]).hexdigest()]
    }
    assert "ok" in again.send(CONTENT[150_000:], offset=150_000, **FILE), "the host may go back to where a frame begins"
    assert live(tmp_path)[0].read_bytes() == CONTENT
    assert again.end() == 0 and not list(tmp_path.rglob("*.part"))


def test_two_sessions_with_one_file_do_not_share_what_they_receive(tmp_path: Path) -> None:
    first, second = started(tmp_path), started(tmp_path)
    first.start_sending(CONTENT[:100_000], wire_bytes=len(CONTENT), **FILE)
    assert "ok" in second.send(CONTENT, **FILE)
    assert first.process.stdin
    first.process.stdin.write(CONTENT[100_000:])
    first.process.stdin.flush()
    assert "ok" in first.reply()
    assert [agent.end() for agent in (first, second)] == [0, 0]


def test_interrupted_files_are_few(tmp_path: Path) -> None:
    kept = tmp_path / "incoming"
    kept.mkdir()
    for number in range(7):
        part = kept / f"{number:064}.part"
        part.write_bytes(b"x")
        os.utime(part, (time.time() - 10 * number,) * 2)
    old = kept / f"{0:064}.part"
    os.utime(old, (time.time() - 90_000,) * 2)
    agent = started(tmp_path)
    agent.ask("have", blobs={})
    assert sorted(path.name for path in kept.iterdir()) == [f"{number:064}.part" for number in (1, 2, 3, 4)]
    agent.end()


def frame(kind: bytes, payload: bytes, stands_for: int, at: int = 0, length: int = 0) -> bytes:
    return HEADER.pack(kind, len(payload), stands_for, at, length) + payload


def test_frames_of_all_kinds_make_one_file(talk: Talk, tmp_path: Path) -> None:
    base = os.urandom(90_000)
    new = base[:40_000] + b"inserted" + base[40_000:] + bytes(50_000) + CONTENT
    assert "ok" in talk.send(base, sha256=sha256(base).hexdigest(), size_bytes=len(base))
    changed, zeros = new[:90_008], bytes(50_000)
    frames = [
        frame(PATCH, bsdiff4.diff(base, changed), len(changed), 0, len(base)),
        frame(DEFLATED, zlib.compress(zeros), len(zeros)),
        frame(PLAIN, CONTENT, len(CONTENT)),
    ]
    fields = {"sha256": sha256(new).hexdigest(), "size_bytes": len(new), "framed": True}
    assert "ok" in talk.send(b"".join(frames), base=sha256(base).hexdigest(), **fields)
    assert (tmp_path / "blobs" / "sha256" / sha256(new).hexdigest()).read_bytes() == new


@pytest.mark.parametrize(
    "frames",
    [
        frame(DEFLATED, zlib.compress(bytes(1 << 26)), 300_000),
        frame(DEFLATED, b"not compressed", 300_000),
        frame(PLAIN, b"short", 300_000),
        frame(b"?", b"what", 300_000),
        frame(PATCH, b"BSDIFF40", 300_000),
        frame(PLAIN, CONTENT, 300_001),
        HEADER.pack(PLAIN, 1 << 40, 1 << 40, 0, 0),
        HEADER.pack(DEFLATED, 1 << 40, 10, 0, 0),
        frame(DEFLATED, zlib.compress(b""), 0),
        frame(DEFLATED, bytes(MAX_FRAME_BYTES + 1), 300_000),
        b"less than a header",
        b"",
    ],
)
def test_frames_that_make_no_sense_are_refused_and_the_session_goes_on(
    talk: Talk, tmp_path: Path, frames: bytes
) -> None:
    assert talk.send(frames, framed=True, **FILE)["error"]["code"] in ("agent", "hash-mismatch")
    assert live(tmp_path) == [] and not list(tmp_path.rglob("*.part"))
    assert "ok" in talk.send(CONTENT, **FILE)


@given(st.binary(max_size=3000), st.binary(max_size=3000), st.integers(0, 3000), st.integers(0, 60))
def test_patches_are_applied_as_their_library_does(old: bytes, fresh: bytes, at: int, cut: int) -> None:
    new = old[cut:at] + fresh + bytes(byte + 1 & 255 for byte in old[at:])
    assert patched(old, bsdiff4.diff(old, new), len(new)) == new


@given(st.binary(min_size=32, max_size=400), st.integers(0, 399), st.integers(1, 255))
def test_a_damaged_patch_makes_other_bytes_or_is_refused(old: bytes, at: int, flip: int) -> None:
    new = old[::-1] + old
    patch = bytearray(bsdiff4.diff(old, new))
    patch[at % len(patch)] ^= flip
    try:
        assert len(patched(old, bytes(patch), len(new))) == len(new)
    except Refused as refusal:
        assert refusal.error["code"] == "hash-mismatch"


@settings(max_examples=20)
@given(st.integers(0, 140_000), st.randoms(use_true_random=False))
def test_bytes_are_added_modulo_256(size: int, random: object) -> None:
    left, right = random.randbytes(size), random.randbytes(size)  # type: ignore[attr-defined]
    assert add_bytes(left, right) == bytes(a + b & 255 for a, b in zip(left, right, strict=True))


def test_a_full_disk_is_told_and_gives_its_space_back(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    os.system(f"mount -t tmpfs -o size=512k tmpfs {disk}")  # noqa: S605
    try:
        agent = started(disk)
        content = os.urandom(2_000_000)
        fields = {"sha256": sha256(content).hexdigest(), "size_bytes": len(content)}
        assert agent.send(content, **fields)["error"]["code"] == "disk-full"
        assert shutil.disk_usage(disk).free > 200_000
        agent.end()
    finally:
        os.system(f"umount {disk}")  # noqa: S605

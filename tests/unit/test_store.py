"""The state folder: what has a live name is whole, what is not usable is as if it were not there."""

import errno
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from pipeline.errors import HostDiskFull, UsageError
from pipeline.records import FloatOps, Refusal, Release
from pipeline.store import Store, check_writable, disk_fault, explained_disk_errors, file_digest

KINDS = (Release, Refusal)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state")


def release(store: Store, content: bytes = b"model") -> Release:
    return Release(id="r", manifest=store.add_bytes(b"manifest"), candidates={"a": store.add_bytes(content)})


def test_a_record_comes_back_with_its_kind(store: Store) -> None:
    kept, refused = release(store), Refusal(stage="quantize", reason="no")
    store.write_record("package", "x", "f" * 64, kept)
    store.write_record("package", "y", "f" * 64, refused)
    assert store.read_record("package", "x", "f" * 64, KINDS) == kept
    assert store.read_record("package", "y", "f" * 64, KINDS) == refused
    assert store.read_record("package", "x", "e" * 64, KINDS) is None
    assert store.read_record("package", "x", "f" * 64, (FloatOps,)) is None


def test_a_record_is_of_no_use_without_its_blobs(store: Store) -> None:
    kept = release(store)
    store.write_record("package", "x", "f" * 64, kept)
    blob = store.path(kept.candidates["a"])
    blob.unlink()
    assert store.read_record("package", "x", "f" * 64, KINDS) is None
    assert store.add_bytes(b"model") == kept.candidates["a"]
    assert store.read_record("package", "x", "f" * 64, KINDS) == kept


@pytest.mark.parametrize("by", ["file", "bytes"])
def test_a_blob_cut_short_is_replaced(store: Store, tmp_path: Path, by: str) -> None:
    kept = release(store)
    store.write_record("package", "x", "f" * 64, kept)
    blob = store.path(kept.candidates["a"])
    blob.chmod(0o644)
    blob.write_bytes(b"mod")
    assert store.read_record("package", "x", "f" * 64, KINDS) is None
    (tmp_path / "again").write_bytes(b"model")
    (store.root / "tmp").mkdir(exist_ok=True)
    assert (store.add_file(tmp_path / "again") if by == "file" else store.add_bytes(b"model")) == blob.name
    assert file_digest(blob) == blob.name


def test_a_record_belongs_to_what_it_was_made_from(store: Store) -> None:
    kept = release(store)
    store.write_record("package", "x", "f" * 64, kept, {"quantize a": "1" * 64})
    assert store.read_record("package", "x", "f" * 64, KINDS, {"quantize a": "1" * 64}) == kept
    assert store.read_record("package", "x", "f" * 64, KINDS, {"quantize a": "2" * 64}) is None
    assert store.read_record("package", "x", "f" * 64, KINDS) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:40],
        lambda text: "null",
        lambda text: "[]",
        lambda text: "{}",
        lambda text: json.dumps({**json.loads(text), "blobs": None}),
        lambda text: json.dumps({**json.loads(text), "record": {"kind": "release"}}),
        lambda text: json.dumps({**json.loads(text), "record": 3}),
        lambda text: text.replace('"id": "r"', '"id": 7'),
    ],
)
def test_a_damaged_record_is_as_if_it_were_not_there(store: Store, damage: object) -> None:
    store.write_record("package", "x", "f" * 64, release(store))
    [path] = store.root.glob("records/package/*.json")
    damaged = damage(path.read_text())  # type: ignore[operator]
    assert damaged != path.read_text()
    path.write_text(damaged)
    assert store.read_record("package", "x", "f" * 64, KINDS) is None


def _hold(root: Path, held: object, leave: object) -> None:
    with Store(root).exclusive():
        held.set()  # type: ignore[attr-defined]
        leave.wait(30)  # type: ignore[attr-defined]


def test_one_run_at_a_time_and_its_litter_goes(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    held, leave = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(store.root, held, leave))
    other.start()
    try:
        assert held.wait(30)
        (store.root / "tmp" / "of-the-other").touch()
        with pytest.raises(UsageError) as caught, store.exclusive():
            raise AssertionError("two runs in one folder")
        assert f"another run holds {store.root} (process {other.pid})" == caught.value.message
        assert (store.root / "tmp" / "of-the-other").exists()
    finally:
        leave.set()
        other.join()
    with store.exclusive(), store.workspace() as folder:
        assert not (store.root / "tmp" / "of-the-other").exists()
        (folder / "file").touch()
        assert (store.root / "lock").read_text() == str(os.getpid())
    assert not folder.exists()


def test_files_move_in_and_are_read_only(store: Store) -> None:
    with store.exclusive(), store.workspace() as folder:
        (folder / "made").write_bytes(b"model")
        digest = store.add_file(folder / "made")
        assert not (folder / "made").exists()
    assert store.path(digest).read_bytes() == b"model"
    assert store.path(digest).stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "no space left on this host's disk for /a/b"), (errno.EROFS, "cannot write /a/b: Read-only")],
)
def test_disk_errors_name_the_place_and_the_remedy(number: int, said: str) -> None:
    with pytest.raises(HostDiskFull) as caught, explained_disk_errors(Path("/state")):
        raise OSError(number, os.strerror(number), "/a/b")
    assert caught.value.message.startswith(said)
    assert "--state DIR" in caught.value.hint
    assert "/state" in disk_fault(OSError(number, os.strerror(number)), Path("/state")).message


def test_whether_a_folder_can_be_written_is_told_without_making_it(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    with pytest.raises(HostDiskFull, match="not a directory"):
        check_writable(tmp_path / "file" / "b")


def test_checkpoints_outlive_a_run_and_are_one_key_s_only(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    with store.exclusive():
        (store.unfinished("export", "qat-w4", "first") / "checkpoint").write_bytes(b"1")
    with store.exclusive():
        assert (store.unfinished("export", "qat-w4", "first") / "checkpoint").read_bytes() == b"1"
        store.unfinished("export", "qat-w8", "first")
        assert list(store.unfinished("export", "qat-w4", "second").parent.iterdir()) == [
            store.root / "unfinished" / "export-qat-w4" / "second"
        ]
        store.finish("export", "qat-w4")
        assert [folder.name for folder in (store.root / "unfinished").iterdir()] == ["export-qat-w8"]

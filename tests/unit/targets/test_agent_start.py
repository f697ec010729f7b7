"""How the agent starts: in the process that found it, from bytecode that is kept, and never from what is damaged."""

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from targets.agent.edge.wire import WIRE
from targets.agent.pack import packed
from targets.agent.session import BOOT

DIGEST = sha256(packed()).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / f"{DIGEST}.pyz").write_bytes(packed())
    return tmp_path


def kept(root: Path) -> Path:
    return root / "agent" / f"{DIGEST}.{sys.implementation.cache_tag}.pyz"


def start(root: Path, *operations: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """The agent's replies, and what the first interpreter, which alone has `-v`, imported from where."""
    argv = [sys.executable, "-v", "-I", "-S", "-c", BOOT, str(root), DIGEST, "token"]
    requests = ({"id": 1, "op": "hello", "wire": list(WIRE)}, *operations)
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    done = subprocess.run(argv, input=lines, capture_output=True, text=True, check=True, timeout=60)
    boot, *replies = map(json.loads, done.stdout.splitlines())
    assert boot["ready"]
    return replies, done.stderr


def rewrite(root: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Change what is in the kept archive, and give it the digest that it then needs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(kept(root)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        new.comment = b"0" * 64
    content = buffer.getvalue()[:-64]
    kept(root).write_bytes(content + sha256(content).hexdigest().encode())


def test_the_second_start_runs_bytecode_in_the_process_that_booted(root: Path) -> None:
    start(root)
    (hello, facts), told = start(root, {"id": 2, "op": "facts"})
    assert hello["ok"]["wire"] == list(WIRE)
    assert facts["ok"]["executable"] == sys.executable
    assert f"import 'edge.agent' # <zipimporter object \"{kept(root)}/edge/\">" in told


def test_it_is_the_bytecode_that_runs(root: Path) -> None:
    start(root)
    rewrite(root, lambda name, content: content if name.endswith("c") else b"raise SystemExit('compiled again')")
    (hello,), _ = start(root)
    assert hello["ok"]


@pytest.mark.parametrize("at", [0, 200, -1])
def test_damaged_bytecode_is_never_run_and_made_anew(root: Path, at: int) -> None:
    start(root)
    whole = kept(root).read_bytes()
    damaged = bytearray(whole)
    damaged[at] ^= 1
    kept(root).write_bytes(damaged)
    (hello,), _ = start(root)
    assert hello["ok"]
    content = kept(root).read_bytes()
    assert content != damaged
    assert sha256(content[:-64]).hexdigest().encode() == content[-64:]
    assert sorted(path.suffix for path in (root / "agent").iterdir()) == [".pyz", ".pyz"]


def test_a_benchmarks_child_starts_from_it(root: Path) -> None:
    start(root)
    job = {"format": "none", "inputs": "/nowhere"}
    argv = [sys.executable, "-I", str(kept(root)), "--bench"]
    done = subprocess.run(argv, input=json.dumps(job), capture_output=True, text=True, check=True, timeout=60)
    assert "error" in json.loads(done.stdout.splitlines()[-1])


def test_bytecode_of_another_python_is_left_for_the_sources(root: Path) -> None:
    start(root)
    rewrite(root, lambda name, content: b"\0\0\r\n" + content[4:] if name.endswith("c") else content)
    (hello,), _ = start(root)
    assert hello["ok"]

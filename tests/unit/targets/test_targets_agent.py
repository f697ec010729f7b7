"""The agent's protocol, spoken to the program itself."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from targets.agent.edge.wire import MAX_REQUEST_BYTES, WIRE
from targets.agent.pack import packed


class Talk:
    """A running agent and its line protocol."""

    def __init__(self, root: Path) -> None:
        program = root / "agent.pyz"
        program.write_bytes(packed())
        argv = [sys.executable, "-I", str(program), str(root)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def raw(self, line: bytes) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()
        reply: dict[str, Any] = json.loads(self.process.stdout.readline())
        return reply

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        return self.raw(json.dumps({"id": 7, "op": op, **fields}).encode())

    def end(self) -> int:
        assert self.process.stdin and self.process.stdout
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        status = self.process.wait(timeout=10)
        self.process.stdout.close()
        return status


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    agent = Talk(tmp_path)
    agent.ask("hello", wire=list(WIRE))
    yield agent
    agent.end()


def test_another_major_wire_version_is_refused(tmp_path: Path) -> None:
    agent = Talk(tmp_path)
    reply = agent.ask("hello", wire=[WIRE[0] + 1, 0])
    assert "wire version" in reply["error"]["message"]
    assert "ok" in agent.ask("hello", wire=[WIRE[0], 99])
    assert agent.end() == 0


@pytest.mark.parametrize(
    "line", [b"not json", b"[]", b"{}", b"null", b'{"id": 7}', b'{"id": 7, "op": ["have"]}', b'{"id":7,"op":"exec"}']
)
def test_a_request_out_of_protocol_is_answered_and_survived(talk: Talk, line: bytes) -> None:
    assert talk.raw(line)["error"]["code"] == "agent"
    assert "ok" in talk.ask("facts")


@pytest.mark.parametrize("digest", ["../../etc/passwd", "", "A" * 64, "0" * 63, "0" * 64 + "\n"])
@pytest.mark.parametrize("op", ["have", "commit", "discard"])
def test_nothing_but_a_digest_names_a_file(talk: Talk, op: str, digest: str) -> None:
    reply = talk.ask(op, sha256=digest, blobs={digest: 1})
    assert "not a SHA-256 digest" in reply["error"]["message"]


def test_a_line_without_end_ends_the_agent_and_not_the_memory(talk: Talk) -> None:
    assert talk.process.stdin
    with suppress(BrokenPipeError):
        talk.process.stdin.write(b"x" * (MAX_REQUEST_BYTES + 200_000))
        talk.process.stdin.flush()
    assert talk.process.wait(timeout=10) == 0


def test_parts_become_blobs_only_when_they_hash(talk: Talk, tmp_path: Path) -> None:
    parts = Path(talk.ask("hello", wire=list(WIRE))["ok"]["parts"])
    content = b"a model"
    digest = sha256(content).hexdigest()
    (parts / f"{digest}.part").write_bytes(content[:-1])
    assert talk.ask("commit", sha256=digest)["error"]["code"] == "hash-mismatch"
    assert not (parts / f"{digest}.part").exists()
    (parts / f"{digest}.part").write_bytes(content)
    assert "ok" in talk.ask("commit", sha256=digest)
    assert (tmp_path / "blobs" / "sha256" / digest).read_bytes() == content
    assert talk.ask("have", blobs={digest: len(content)})["ok"]["present"] == [digest]
    assert talk.ask("have", blobs={digest: len(content) + 1})["ok"]["present"] == []
    assert "error" in talk.ask("commit", sha256="1" * 64)


def test_leaving_removes_what_was_unfinished(talk: Talk) -> None:
    parts = Path(talk.ask("hello", wire=list(WIRE))["ok"]["parts"])
    (parts / "half.part").write_bytes(b"half")
    talk.process.terminate()
    talk.process.wait(timeout=10)
    assert not parts.exists()

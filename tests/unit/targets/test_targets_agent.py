"""The agent's protocol, spoken to the program itself."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from agent_talk import Talk

from targets.agent.edge.wire import MAX_REQUEST_BYTES, WIRE


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
@pytest.mark.parametrize("op", ["have", "receive"])
def test_nothing_but_a_digest_names_a_file(talk: Talk, op: str, digest: str) -> None:
    reply = talk.ask(op, sha256=digest, blobs={digest: 1}, size_bytes=0, offset=0, wire_bytes=0)
    assert "not a SHA-256 digest" in reply["error"]["message"]


def test_a_line_without_end_ends_the_agent_and_not_the_memory(talk: Talk) -> None:
    assert talk.process.stdin
    with suppress(BrokenPipeError):
        talk.process.stdin.write(b"x" * (MAX_REQUEST_BYTES + 200_000))
        talk.process.stdin.flush()
    assert talk.process.wait(timeout=10) == 0


def test_leaving_removes_what_was_unfinished(talk: Talk) -> None:
    parts = Path(talk.ask("hello", wire=list(WIRE))["ok"]["parts"])
    (parts / "half.part").write_bytes(b"half")
    talk.process.terminate()
    talk.process.wait(timeout=10)
    assert not parts.exists()

"""The agent's protocol, spoken to the packed program itself."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from targets.agent.pack import packed


class Talk:
    """A running agent and its line protocol."""

    def __init__(self, root: Path) -> None:
        program = root / "agent.pyz"
        program.write_bytes(packed())
        argv = [sys.executable, "-I", str(program), str(root)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def raw(self, line: bytes) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()
        return self.reply()

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        return self.raw(json.dumps({"id": 7, "op": op, **fields}).encode())

    def send(self, payload: bytes, **fields: Any) -> dict[str, Any]:
        """A `receive` with what follows it."""
        self.start_sending(payload, **fields)
        return self.reply()

    def start_sending(self, payload: bytes, **fields: Any) -> None:
        assert self.process.stdin
        request = {"id": 7, "op": "receive", "offset": 0, "framed": False, "base": "", "wire_bytes": len(payload)}
        self.process.stdin.write(json.dumps({**request, **fields}).encode() + b"\n" + payload)
        self.process.stdin.flush()

    def reply(self) -> dict[str, Any]:
        assert self.process.stdout
        reply: dict[str, Any] = json.loads(self.process.stdout.readline())
        return reply

    def end(self) -> int:
        assert self.process.stdin and self.process.stdout
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        status = self.process.wait(timeout=10)
        self.process.stdout.close()
        return status

"""One session: requests in, replies out, and nothing left behind at its end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable

from .benchmark import Benchmark
from .blobs import Blobs
from .facts import gather_facts
from .provisioning import provision
from .smoke import try_runtimes
from .wire import WIRE, HostGone, Json, Link, Refused, os_refusal


class Agent:
    """Serves one session until its stdin ends, then leaves no child and no half file behind."""

    def __init__(self, root: Path, link: Link, program: Path) -> None:
        self.link = link
        self.blobs = Blobs(root)
        self.benchmark = Benchmark(self.blobs, link, program)
        self.operations: dict[str, Callable[[Json], Json]] = {
            "hello": self.hello,
            "facts": lambda _: gather_facts(root),
            "try-runtimes": lambda _: try_runtimes(),
            "have": self.blobs.have,
            "commit": self.blobs.commit,
            "discard": self.blobs.discard,
            "bench": self.benchmark.bench,
            "provision": lambda request: provision(self.blobs, request),
        }

    def serve(self) -> None:
        try:
            while True:
                self.answer(self.link.next_line())
        except (HostGone, BrokenPipeError):
            pass
        finally:
            self.benchmark.kill_child()
            self.blobs.close()

    def answer(self, line: bytes) -> None:
        number: Any = None
        try:
            request = json.loads(line)
            number = request["id"]
            operation = self.operations.get(request["op"])
            if operation is None:
                raise Refused("agent", "unknown operation %r" % request["op"])
            answer = {"ok": operation(request)}
        except Refused as refusal:
            answer = {"error": refusal.error}
        except (HostGone, BrokenPipeError):
            raise
        except OSError as fault:
            answer = {"error": os_refusal(fault).error}
        except Exception as fault:  # a request out of protocol must not cost the session
            answer = {"error": {"code": "agent", "message": "%s: %s" % (type(fault).__name__, fault)}}
        self.link.reply(number, answer)

    def hello(self, request: Json) -> Json:
        major = request["wire"][0]
        if major != WIRE[0]:
            raise Refused("agent", "this agent speaks wire version %d, the host %s" % (WIRE[0], major))
        self.blobs.open()
        return {"wire": list(WIRE), "pid": os.getpid(), "parts": str(self.blobs.parts)}

"""One session: requests in, replies out, and nothing left behind at its end."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .blobs import Blobs
from .incoming import Incoming
from .wire import WIRE, HostGone, Json, Link, Refused, os_refusal

TYPE_CHECKING = False  # see `wire`
if TYPE_CHECKING:
    from typing import Any, Callable

    from .benchmark import Benchmark
    from .releases import Releases


class Agent:
    """Serves one session until its stdin ends, then leaves no child and no half file behind."""

    def __init__(self, root: Path, link: Link, program: Path) -> None:
        self.link, self.program = link, program
        self.blobs = Blobs(root)
        self.incoming = Incoming(self.blobs, link)
        self.benchmark: Benchmark | None = None
        self.kept: Releases | None = None
        self.operations: dict[str, Callable[[Json], Json]] = {
            "hello": self.hello,
            "facts": self.facts,
            "try-runtimes": self.try_runtimes,
            "have": self.incoming.have,
            "receive": self.incoming.receive,
            "bench": self.bench,
            "provision": self.provision,
            "installed": lambda request: self.releases().installed(request),
            "stage": lambda request: self.releases().stage(request),
            "activate": lambda request: self.releases().activate(request),
            "revert": lambda request: self.releases().revert(request),
            "confirm": lambda request: self.releases().confirm(request),
            "prune": lambda request: self.releases().prune(request),
            "trust": lambda request: self.releases().add_key(request),
            "lease": lambda request: self.releases().take_lease(request),
            "release_lease": lambda request: self.releases().give_back(request),
            "hook": self.hook,
        }

    def serve(self) -> None:
        try:
            while True:
                self.answer(self.link.next_line())
        except (HostGone, BrokenPipeError):
            pass
        finally:
            if self.benchmark:
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

    # What follows is imported when it is first asked for: on a small board each of these costs a tenth of a second.

    def facts(self, _: Json) -> Json:
        from .facts import gather_facts

        return gather_facts(self.blobs.root)

    def bench(self, request: Json) -> Json:
        from .benchmark import Benchmark

        self.benchmark = self.benchmark or Benchmark(self.blobs, self.link, self.program)
        return self.benchmark.bench(request)

    def try_runtimes(self, _: Json) -> Json:
        from .smoke import try_runtimes

        return try_runtimes()

    def provision(self, request: Json) -> Json:
        from .provisioning import provision

        return provision(self.blobs, request)

    def releases(self) -> Releases:
        from .releases import Releases

        self.kept = self.kept or Releases(self.blobs)
        return self.kept

    def hook(self, request: Json) -> Json:
        from .hook import hook

        with self.releases().turn():
            pass  # raises when another owner holds the lease; the hook itself may look at releases
        return hook(request, self.releases(), self.link)

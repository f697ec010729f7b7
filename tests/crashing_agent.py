"""The agent's own code, each operation in a process that is killed at a chosen step on the file system.

Run as `python crashing_agent.py ROOT`. In comes a line of JSON, {"crash_after": n or null, "payload": hex, ...request},
out goes the agent's reply, or {"crashed": true}. Imports nothing of pytest, and forks from one thread.
"""

import io
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "targets" / "agent"))

from edge.agent import Agent
from edge.wire import WIRE, HostGone, Link

sys.path.pop(0)

STEPS = {"open", "os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"}


def serve(root: Path, request: dict[str, object], crash_after: int | None, payload: bytes, said: int) -> None:
    """Answer one request on a file descriptor, or die."""
    reading, writing = os.pipe()
    os.write(writing, payload)
    os.close(writing)
    replies = io.BytesIO()
    agent = Agent(root, Link(reading, replies), Path("unused"))
    agent.hello({"wire": WIRE})
    left = [crash_after]

    def count(event: str, _: object) -> None:
        if left[0] is not None and event in STEPS:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    try:
        agent.answer(json.dumps({"id": 1, **request}).encode())
    except HostGone:  # a file whose rest has not come
        replies.write(b'{"gone": true}\n')
    left[0] = None
    agent.blobs.close()
    os.write(said, replies.getvalue())
    os._exit(0)


def main(root: Path) -> None:
    answers, said = os.pipe()
    for line in sys.stdin:
        request = json.loads(line)
        crash_after, payload = request.pop("crash_after"), bytes.fromhex(request.pop("payload"))
        pid = os.fork()
        if not pid:
            serve(root, request, crash_after, payload, said)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        reply = os.read(answers, 1 << 16) if status == 0 else b'{"crashed": true}\n'
        sys.stdout.write(reply.decode() if status in (0, -signal.SIGKILL) else f'{{"died": {status}}}\n')
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The first program run on a device: it makes our folder there and says whether the agent is in it.

Run as `python3 -I -S -c THIS ROOT AGENT_SHA256 TOKEN [PREFER_OWN]`. It must run on any Python 3, since it is what finds
out which one is there. An agent that arrived as `<sha256>.<TOKEN>.part` is hashed and renamed. When the agent is there,
this process becomes it, so that connecting costs one command, one round trip and one start of Python; with PREFER_OWN
in the interpreter of ROOT/env, the environment that `deploy targets provision` made, if there is one.
"""

import hashlib
import importlib
import json
import os
import sys
import time

STALE_PART_S = 3600  # an agent of some 50 kB that is still on its way after an hour is not coming


def sha256_of(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123
        return hashlib.sha256(file.read()).hexdigest()


def compiled(live: str) -> str:
    """The agent with this Python's bytecode in it, if it is there and whole (see `edge.compiled`), else the agent."""
    path = live[: -len("pyz")] + str(sys.implementation.cache_tag) + ".pyz"
    if not os.path.exists(path):  # noqa: PTH110
        return live
    with open(path, "rb") as file:  # noqa: PTH123
        content = file.read()
    if hashlib.sha256(content[:-64]).hexdigest().encode() == content[-64:]:
        return path
    os.unlink(path)  # noqa: PTH108
    return live


def prepare(root: str, digest: str, token: str) -> "dict[str, object]":
    root = os.path.abspath(os.path.expanduser(root))  # noqa: PTH100, PTH111
    folder = os.path.join(root, "agent")  # noqa: PTH118
    if not os.path.isdir(folder):  # noqa: PTH112
        os.makedirs(folder, 0o700)  # noqa: PTH103
    live = os.path.join(folder, digest + ".pyz")  # noqa: PTH118
    part = os.path.join(folder, digest + "." + token + ".part")  # noqa: PTH118
    if os.path.exists(part):  # noqa: PTH110
        if sha256_of(part) == digest:
            os.replace(part, live)  # noqa: PTH105
        else:
            os.unlink(part)  # noqa: PTH108
    for name in os.listdir(folder):  # noqa: PTH208
        path = os.path.join(folder, name)  # noqa: PTH118
        if name.endswith(".part") and path != part and time.time() - os.path.getmtime(path) > STALE_PART_S:  # noqa: PTH204
            os.unlink(path)  # noqa: PTH108
    ready = os.path.exists(live) and sha256_of(live) == digest  # noqa: PTH110
    return {"root": root, "agent": live, "part": part, "ready": ready}


if __name__ == "__main__":
    answer = {"edge_deploy_boot": 1, "python": list(sys.version_info[:3]), "executable": sys.executable}
    try:
        answer.update(prepare(*sys.argv[1:4]))
    except OSError as fault:
        answer.update(errno=fault.errno, message=str(fault))
    print(json.dumps(answer))
    sys.stdout.flush()
    if answer.get("ready") and sys.version_info >= (3, 9):
        program, root = compiled(str(answer["agent"])), str(answer["root"])
        own = os.path.join(root, "env", "bin", "python3")  # noqa: PTH118
        if sys.argv[4:] and os.access(own, os.X_OK):
            os.execv(own, [own, "-I", "-S", program, root])
        sys.argv = [program, root]
        sys.path.insert(0, program)
        importlib.import_module("edge.main").main(sys.argv)

"""The other tools' side of `benchmarks.fleet`, run by the Python of an environment that has them.

`python fleet_peer.py TOOL` reads {"hosts": [{host, port, user, key}], "known_hosts", "path", "digest"} on stdin, brings
the file to every host as the tool's users do, has the hash said there, and prints the seconds, its imports not counted.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

Job = dict[str, Any]
_HASH = "sha256sum peer.part && mv peer.part peer"
_LIMIT_S = 60  # a hundred logins at once on two cores


def fabric(job: Job) -> Callable[[], list[str]]:
    from fabric import Connection, ThreadingGroup  # type: ignore[import-untyped]

    def push() -> list[str]:
        made = [
            Connection(
                host["host"], host["user"], host["port"], connect_timeout=_LIMIT_S,
                connect_kwargs={"key_filename": host["key"], "banner_timeout": _LIMIT_S, "auth_timeout": _LIMIT_S},
            )
            for host in job["hosts"]
        ]  # fmt: skip
        with ThreadingGroup.from_connections(made) as group:
            group.put(job["path"], remote="peer.part")
            return [result.stdout for result in group.run(_HASH, hide=True).values()]

    return push


def parallel_ssh(job: Job) -> Callable[[], list[str]]:
    from gevent import joinall  # type: ignore[import-not-found, unused-ignore]
    from pssh.clients import ParallelSSHClient  # type: ignore[import-not-found, unused-ignore]
    from pssh.config import HostConfig  # type: ignore[import-not-found, unused-ignore]

    def push() -> list[str]:
        configs = [HostConfig(user=host["user"], port=host["port"], private_key=host["key"]) for host in job["hosts"]]
        names = [host["host"] for host in job["hosts"]]
        client = ParallelSSHClient(names, host_config=configs, pool_size=len(names), timeout=_LIMIT_S)
        joinall(client.copy_file(job["path"], "peer.part"), raise_error=True)
        return ["\n".join(output.stdout) for output in client.run_command(_HASH)]

    return push


def asyncssh(job: Job) -> Callable[[], list[str]]:
    import asyncssh as library  # type: ignore[import-not-found, unused-ignore]

    async def one(host: Job) -> str:
        options = {"username": host["user"], "client_keys": [host["key"]], "known_hosts": job["known_hosts"]}
        limits = {"connect_timeout": _LIMIT_S, "login_timeout": _LIMIT_S}
        async with library.connect(host["host"], host["port"], **options, **limits) as connection:
            async with connection.start_sftp_client() as sftp:
                await sftp.put(job["path"], "peer.part")
            return str((await connection.run(_HASH)).stdout)

    async def every() -> list[str]:
        return await asyncio.gather(*(one(host) for host in job["hosts"]))

    return lambda: asyncio.run(every())


def pyinfra(job: Job) -> Callable[[], list[str]]:
    """Its own way to ask whether a file is there: the hashes are compared by `files.put`."""
    from gevent import monkey

    monkey.patch_all()
    from pyinfra.api import Config, Inventory, State  # type: ignore[import-not-found, unused-ignore]
    from pyinfra.api.connect import connect_all  # type: ignore[import-not-found, unused-ignore]
    from pyinfra.api.operation import add_op  # type: ignore[import-not-found, unused-ignore]
    from pyinfra.api.operations import run_ops  # type: ignore[import-not-found, unused-ignore]
    from pyinfra.context import ctx_state  # type: ignore[import-not-found, unused-ignore]
    from pyinfra.operations import files  # type: ignore[import-not-found, unused-ignore]

    def push() -> list[str]:
        names = [
            (
                f"host-{number}",
                {
                    "ssh_hostname": host["host"], "ssh_port": host["port"], "ssh_user": host["user"],
                    "ssh_key": host["key"], "ssh_known_hosts_file": job["known_hosts"],
                },
            )
            for number, host in enumerate(job["hosts"])
        ]  # fmt: skip
        inventory = Inventory((names, {}))
        state = State(inventory, Config(PARALLEL=len(names), CONNECT_TIMEOUT=_LIMIT_S))
        with ctx_state.use(state):
            connect_all(state)
            add_op(state, files.put, src=job["path"], dest="peer")
            run_ops(state)
            if len(state.active_hosts) != len(names):
                raise RuntimeError(f"{len(names) - len(state.active_hosts)} hosts failed")
        return []

    return push


TOOLS = {"fabric": fabric, "parallel-ssh": parallel_ssh, "asyncssh": asyncssh, "pyinfra": pyinfra}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    work = TOOLS[sys.argv[1]](asked)
    start = time.perf_counter()
    said = work()
    took = time.perf_counter() - start
    if said and not (len(said) == len(asked["hosts"]) and all(text.startswith(asked["digest"]) for text in said)):
        raise SystemExit(f"{sys.argv[1]}: wrong hashes: {said[:3]}")
    print(took)

"""The process that a lab is: it starts the devices, forwards to them, and takes them along when it ends.

Run as `python -I -m targets.lab.keeper NAME [--bound]` by `targets.lab.lab.up`, which has written lab.json; says
"ready", or what went wrong, on standard output. Everything below it dies with it: see `targets.lab`.
"""

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from targets.lab import namespaces as ns
from targets.lab.boot import PREFIX_BITS, Machine, forget_dead_connections, run_ip
from targets.lab.forwarder import Link, listening_socket
from targets.lab.identity import known_hosts
from targets.lab.kinds import load_kind
from targets.lab.power.supply import Supply, supply
from targets.lab.state import LabDevice, LabState, ProcessId, load_lab

HUB_ADDRESS = "10.99.255.254"
_POLL_S = 0.02
# What a device's link calls a fault, and what `deploy lab fault` does.
LINK_FAULTS = {
    "dark": "blackhole",
    "refusing": "refuse",
    "delay_s": "delay",
    "jitter_s": "jitter",
    "loss_share": "loss",
    "rate_bytes_per_s": "rate",
    "cut_after_bytes": "cut-after",
    "dark_after_bytes": "blackhole-after",
}
OUTLIVE_REBOOT = {
    "heat",
    "charge",
    "memory",
    "unauthorized",
    "allow",
    "offline",
}  # the others are on the disk, or in a process
DEVICE_FILES = (1024, 4096)  # open files of a device's programs, as Debian sets it


class Keeper:
    """One lab. Everything happens in one thread: a fork from a threaded process would not be safe."""

    def __init__(self, lab: LabState) -> None:
        self.lab = lab
        self.links: dict[str, Link] = {}
        self.number = {device.name: index for index, device in enumerate(lab.devices)}
        self.tasks: set[asyncio.Task[None]] = set()
        self.servers: set[int] = set()  # of sensors; each ends with its device
        self.noted: dict[str, dict[str, float | None]] = {}  # device → faults that were made on it, with their values

    def open_network(self) -> None:
        """Take loopback ports here, then go where the devices are: a network without a way out."""
        listeners = {device.name: listening_socket() for device in self.lab.devices}
        ns.unshare(ns.NEW_NET)
        forget_dead_connections()
        run_ip(["link set lo up", "link add br0 type bridge", f"addr add {HUB_ADDRESS}/{PREFIX_BITS} dev br0"])
        run_ip(["link set br0 up"])
        places = {device.name: (device.address, device.service_port) for device in self.lab.devices}
        self.links = {name: Link(listeners[name], place) for name, place in places.items()}
        ports = {name: listener.getsockname()[1] for name, listener in listeners.items()}
        devices = tuple(replace(device, port=ports[device.name]) for device in self.lab.devices)
        self.lab = replace(self.lab, devices=devices, keeper=ProcessId.of(os.getpid()))
        files = {device.name: self.lab.folder / device.name / "host_key.pub" for device in devices}
        keys = {name: file.read_text(encoding="ascii") for name, file in files.items() if file.exists()}
        lines = known_hosts(ports, {name: " ".join(key.split()[:2]) for name, key in keys.items()})
        (self.lab.folder / "known_hosts").write_text(lines, encoding="ascii")
        self.lab.save()

    def start(self, devices: tuple[LabDevice, ...]) -> None:
        """Start devices; they listen a moment later. One `ip` lays all cables: starting it costs more than its work."""
        waiting: dict[str, tuple[int, int, int]] = {}
        for device in devices:
            waiting[device.name] = self._fork(device, [fd for _, *pipes in waiting.values() for fd in pipes])
        for pid, ready, _ in waiting.values():
            if os.read(ready, 1) != b"1":
                raise OSError(f"a device could not enter namespaces of its own (process {pid})")
            os.close(ready)
        lines = []
        for name, (pid, _, _) in waiting.items():
            port = f"port{self.number[name]}"
            # A board keeps its hardware address over a reboot; else the hub would talk to the old one for seconds.
            mac = "02:00:" + ":".join(f"{int(part):02x}" for part in self.lab.device(name).address.split("."))
            lines.append(f"link add {port} type veth peer name eth0 address {mac} netns {pid}")
            lines.append(f"link set {port} master br0 up")
        run_ip(lines)
        for _, _, go in waiting.values():
            os.write(go, b"1")
            os.close(go)
        processes = {name: ProcessId.of(pid) for name, (pid, _, _) in waiting.items()}
        self.lab = replace(self.lab, processes={**self.lab.processes, **processes})
        self.lab.save()

    def _fork(self, device: LabDevice, pipes: list[int]) -> tuple[int, int, int]:
        """A new device's first process, waiting for its cable: (pid, pipe saying "ready", pipe taking "go").

        `pipes` are the keeper's ends for others. No child may keep one: it is by their end that a child learns of a
        keeper that was killed before `end_with_parent` could take effect.
        """
        given = supply(self.lab.name, device.name, load_kind(device.kind).sensors(device))
        ready, say_ready = os.pipe()
        wait, go = os.pipe()
        ns.unshare(ns.NEW_PID)
        pid = os.fork()
        if pid == 0:
            for number in (*pipes, ready, go):
                os.close(number)
            self._become(device, given, say_ready, wait)
        ns.enter_own_pid_namespace()
        os.close(say_ready)
        os.close(wait)
        if given.lacking:
            self.lab = replace(self.lab, lacking={**self.lab.lacking, device.name: given.lacking})
        if server := given.serve(self.lab.folder / device.name / "power.jsonl"):
            self.servers.add(server)
        return pid, ready, go

    def _become(self, device: LabDevice, given: Supply, say_ready: int, wait: int) -> None:
        """The child's side of the fork; never returns."""
        try:
            ns.end_with_parent()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_NOFILE, DEVICE_FILES)
            os.setsid()
            log = os.open(self.lab.folder / f"{device.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            for number in (1, 2):
                os.dup2(log, number)
            if given.cgroup:
                given.cgroup.enter()
            ns.unshare(ns.NEW_MOUNT | ns.NEW_UTS | ns.NEW_IPC | ns.NEW_NET)
            os.write(say_ready, b"1")
            if os.read(wait, 1) == b"1":
                folder = self.lab.folder / device.name
                machine = Machine(
                    hostname=device.name,
                    address=device.address,
                    folder=folder,
                    disk_bytes=device.disk_bytes,
                    supply=given,
                )
                load_kind(device.kind).boot(machine, device, Path(self.lab.resources[device.kind]))
        except BaseException as fault:
            os.write(2, f"boot: {type(fault).__name__}: {fault}\n".encode())
        finally:
            os._exit(1)

    async def wait_until_listening(self, names: tuple[str, ...]) -> None:
        """Raises OSError, with the device's own last words, when one does not come up."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        left = set(names)
        while left:
            left -= {name for name in left if self._ready(name)}
            ended = {name for name in left if name not in self.lab.processes or self._has_ended(name)}
            late = {name for name in left if loop.time() > start + load_kind(self.lab.device(name).kind).start_s}
            if ended or late:
                name = min(ended or late)
                log = (self.lab.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
                raise OSError(f"{name} did not start: {log.strip()[-500:] or 'its log is empty'}")
            await asyncio.sleep(_POLL_S)

    def _ready(self, name: str) -> bool:
        device = self.lab.device(name)
        return name in self.lab.processes and load_kind(device.kind).ready(device, self.lab.processes[name])

    def _has_ended(self, name: str) -> bool:
        process = self.lab.processes[name]
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    async def run(self) -> None:
        """Bring everything up, say so, and serve until killed."""
        for link in self.links.values():
            self.spawn(link.serve())
        self.start(self.lab.devices)
        await self.wait_until_listening(tuple(self.links))
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self.reap)
        control = self.lab.folder / "control"
        server = await asyncio.start_unix_server(self.answer, control)
        control.chmod(0o600)
        os.write(1, b"ready\n")
        os.dup2(2, 1)  # whoever started us need not wait any longer
        await server.serve_forever()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def reap(self) -> None:
        """A device has ended, or a program of ours."""
        for server in tuple(self.servers):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(server, os.WNOHANG) != (0, 0):
                    self.servers.discard(server)
        for name, process in tuple(self.lab.processes.items()):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(process.pid, os.WNOHANG) != (0, 0):
                    processes = {key: value for key, value in self.lab.processes.items() if key != name}
                    self.lab = replace(self.lab, processes=processes)
                    self.lab.save()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one reply."""
        try:
            reply = {"ok": await self.perform(json.loads(await reader.readline()))}
        except Exception as fault:  # a wrong request must not cost the lab
            reply = {"error": f"{type(fault).__name__}: {fault}"}
        writer.write(json.dumps(reply).encode() + b"\n")
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    async def perform(self, request: Mapping[str, Any]) -> Any:
        """The operations that must happen inside this process."""
        if request["op"] == "status":
            return {
                name: {"passed_bytes": link.passed_bytes, "faults": self._wrong(name)}
                for name, link in self.links.items()
            }
        name = request["device"]
        if request["op"] == "note":
            return self.note(name, request["fault"], request["value"])
        if request["op"] == "reboot":
            return await self.reboot(name, float(request["outage_s"]))
        if request["op"] == "link":
            return self.change_link(self.links[name], request["settings"])
        raise ValueError(f"unknown operation {request['op']!r}")

    def note(self, name: str, fault: str, value: float | None) -> None:
        """Remember what was done to a device, to be shown; no fault: all is well again."""
        noted = self.noted.setdefault(name, {})
        if not fault:
            noted.clear()
        elif fault not in LINK_FAULTS.values():  # those the link itself knows, also when they have gone off
            noted[fault] = value

    def _wrong(self, name: str) -> dict[str, float | None]:
        of_link = {LINK_FAULTS[setting]: value for setting, value in self.links[name].faults().items()}
        return {
            fault: None if value is True else value for fault, value in {**of_link, **self.noted.get(name, {})}.items()
        }

    async def reboot(self, name: str, outage_s: float) -> None:
        """End everything on the device at once, and start it again with an empty disk after `outage_s`."""
        link = self.links[name]
        link.cut()
        link.set_dark(True)
        noted = self.noted.get(name, {})
        for fault in noted.keys() - OUTLIVE_REBOOT:
            del noted[fault]
        process = self.lab.processes.get(name)
        if process:
            process.signal(signal.SIGKILL)
            while name in self.lab.processes:  # until `reap` has seen its end
                await asyncio.sleep(_POLL_S)
        await asyncio.sleep(outage_s)
        self.start((self.lab.device(name),))
        await self.wait_until_listening((name,))
        link.set_dark(False)

    def change_link(self, link: Link, settings: Mapping[str, Any]) -> dict[str, float]:
        """Settings of `Link` by name, and the actions "cut" and "restore"."""
        for key, value in settings.items():
            if key == "restore":
                link.restore()
            elif key == "cut":
                link.cut()
            elif key == "dark":
                link.set_dark(bool(value))
            elif key == "refusing":
                link.set_refusing(bool(value))
            elif key == "loss_share":
                link.set_loss(float(value))
            elif key in ("delay_s", "jitter_s", "rate_bytes_per_s"):
                setattr(link, key, float(value))
            elif key in ("cut_after_bytes", "dark_after_bytes"):
                setattr(link, key, int(value))
            else:
                raise ValueError(f"a link has no {key!r}")
        return link.faults()


def main() -> None:
    os.umask(0o022)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two for every connection
    if sys.argv[2:] == ["--bound"]:
        ns.end_with_parent()
    keeper = Keeper(load_lab(sys.argv[1]))
    try:
        keeper.open_network()
        asyncio.run(keeper.run())
    except (OSError, KeyError) as fault:
        os.write(1, f"{fault}\n".encode())
        sys.exit(1)


if __name__ == "__main__":
    main()

"""What can go wrong with a device on demand. Each fault is a row of `FAULTS`; `restore` mends all but lost data."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from targets.errors import EnvironmentFault, UsageError
from targets.lab.adbd.state import AdbdState
from targets.lab.boot import PI_ID
from targets.lab.identity import new_key
from targets.lab.kinds import load_kind
from targets.lab.kinds.adbd import state_file
from targets.lab.lab import ask, command_inside
from targets.lab.power.cgroup import limit_memory
from targets.lab.power.server import CHARGER_FILE, HEAT_FILE
from targets.lab.state import LabDevice, LabState, Service

Dimension = Literal["", "bytes", "s", "share", "k"]
_FILLER = "$disk/.full"
# With nothing that only GNU's programs know: a phone has toybox.
_FILL = f"set -- $(df -k $disk | tail -n 1); fallocate -l $(($4 * 1024)) {_FILLER}"
_HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
# The first process of a device is its sshd, which reads its keys again on HUP.
_TAKE_KEY = f'{{ echo "$key" > {_HOST_KEY}; kill -HUP 1; }}'
_SSHD_CONFIG = "/etc/ssh/sshd_config"
_FAKETIME = "/usr/lib/*/faketime/libfaketime.so.1"
_SKEW = "/run/skew.so"
# The library's clock_nanosleep refuses what Python's time.sleep asks for (a moment of CLOCK_MONOTONIC) as soon as the
# time of day is off. Under another name nobody finds it, and that of libc does what it should.
_MAKE_SKEW = f"LC_ALL=C sed s/clock_nanosleep/clock_nanosleeq/g $(echo {_FAKETIME}) > {_SKEW}; "
# Whose programs `kill` ends; the device's own go on. Debian's adbd gives a shell of root's.
_KILLED_UID: Mapping[Service, int] = {"ssh": PI_ID, "adb": 0}
_SERVERS = ("sshd", "adbd")
_KILL = f"""for process in $(find /proc -maxdepth 1 -uid {PI_ID}); do
    grep -q sshd $process/cmdline || kill -KILL ${{process#/proc/}} || true
done"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of trouble: what it is, what its value means, and how to make it."""

    says: str
    apply: Callable[[LabState, str, float], None]
    dimension: Dimension = ""  # empty: takes no value
    default: float | None = None  # None: a value must be given
    signed: bool = False
    lasting: bool = False  # making it returns only when it is over
    services: tuple[Service, ...] = ("ssh", "adb")  # of devices that can have it
    kinds: tuple[str, ...] = ()  # the only ones that can; empty: all with such a service
    needs_sensors: bool = False
    momentary: bool = False  # nothing of it remains to be shown or mended


def inflict(lab: LabState, name: str, fault: str, value: float | None = None) -> None:
    """Make a fault on a device. `value` is in bytes, seconds, kelvin or a share of 1, as the fault's dimension says.

    Raises UsageError for an unknown device or fault, one that such a device cannot have, or a missing value;
    EnvironmentFault when it cannot be made.
    """
    row = suiting(lab.device(name), fault)
    if value is not None and not row.dimension:
        raise UsageError(f"{fault} takes no value", hint=f"deploy lab fault {name} {fault}")
    value = row.default if value is None else value
    if row.dimension and value is None:
        raise UsageError(f"{fault} needs a value in {row.dimension}", hint=f"deploy lab fault {name} {fault}=…")
    if row.dimension == "share" and (value or 0.0) > 1:
        raise UsageError(f"{fault}: more than all", hint=f"deploy lab fault {name} {fault}=100%")
    row.apply(lab, name, value or 0.0)
    if not row.momentary:
        ask(lab, {"op": "note", "device": name, "fault": fault, "value": value})


def suiting(device: LabDevice, fault: str) -> Fault:
    """The fault of that name, which such a device can have; raises UsageError."""
    if fault not in FAULTS:
        raise UsageError(f"{fault}: no fault of the lab", hint=f"there are {', '.join(FAULTS)}")
    row = FAULTS[fault]
    if not _suits(device, row):
        able = f"devices made by --{' or --'.join(row.kinds)}" if row.kinds else f"devices with {row.services[0]}"
        able = "devices that have a temperature" if row.needs_sensors else able
        hint = f"{device.name} can have {', '.join(key for key, other in FAULTS.items() if _suits(device, other))}"
        raise UsageError(f"{fault} is for {able}, not for {device.name}", hint=hint)
    return row


def _suits(device: LabDevice, fault: Fault) -> bool:
    if device.service not in fault.services or (fault.kinds and device.kind not in fault.kinds):
        return False
    return not fault.needs_sensors or load_kind(device.kind).sensors(device) is not None


def _link(setting: str) -> Callable[[LabState, str, float], None]:
    """A fault that is one setting of the link; without a value it is switched on."""

    def apply(lab: LabState, name: str, value: float) -> None:
        ask(lab, {"op": "link", "device": name, "settings": {setting: value or True}})

    return apply


def _inside(script: str) -> Callable[[LabState, str, float], None]:
    """A fault that root on the device could make; `$disk` is the mount that its user writes to."""

    def apply(lab: LabState, name: str, _: float) -> None:
        _run_inside(lab, name, script)

    return apply


def _run_inside(lab: LabState, name: str, script: str, text: str = "") -> str:
    disk = load_kind(lab.device(name).kind).disk
    command = command_inside(lab, name, ["sh", "-ec", f"disk={disk}; {script}"])
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    if done.returncode:
        raise EnvironmentFault(f"{name}: {done.stderr.strip()}", hint=f"deploy lab exec {name} -- sh")
    return done.stdout


def _reboot(lab: LabState, name: str, outage_s: float) -> None:
    ask(lab, {"op": "reboot", "device": name, "outage_s": outage_s})


def _new_host_key(lab: LabState, name: str, _: float) -> None:
    with TemporaryDirectory() as folder:
        new_key(Path(folder) / "key", name)
        text = (Path(folder) / "key").read_text(encoding="ascii")
    _run_inside(lab, name, f"key=$(cat); {_TAKE_KEY}", text)


def _stop(lab: LabState, name: str, _: float) -> None:
    _signal_service(lab, name, signal.SIGSTOP)


def _signal_service(lab: LabState, name: str, number: signal.Signals) -> None:
    """From outside: the first process of a namespace, as sshd is, cannot be stopped from within."""
    lab.processes[name].signal(number)
    for process in _processes(lab, name):
        with suppress(OSError):
            if (process / "comm").read_text(encoding="utf-8").strip() == "adbd":  # it is the first one's child
                os.kill(int(process.name), number)


def _processes(lab: LabState, name: str) -> list[Path]:
    """The folders in /proc of all that runs on a device, but for its first process."""
    first = Path(f"/proc/{lab.processes[name].pid}")
    inside = (first / "ns/pid").readlink()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if process != first and (process / "ns/pid").readlink() == inside:
                found.append(process)
    return found


def _set_clock(lab: LabState, name: str, offset_s: float) -> None:
    """New sessions see another time of day; time that is measured (CLOCK_MONOTONIC) passes as ever."""
    device = lab.device(name)
    variables = load_kind(device.kind).environment(device)
    if offset_s:
        variables |= {"LD_PRELOAD": _SKEW, "FAKETIME": f"{offset_s:+.0f}", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    line = " ".join(f"{key}={value}" for key, value in variables.items())
    write = f'sed -i "/^SetEnv /d" {_SSHD_CONFIG}; ' + (f'echo "SetEnv {line}" >> {_SSHD_CONFIG}; ' if line else "")
    _run_inside(lab, name, f"{_MAKE_SKEW if offset_s else ''}{write} kill -HUP 1")


def _kill(lab: LabState, name: str, _: float) -> None:
    """SIGKILL, from outside where this machine's kernel runs the device: nothing there sees it coming."""
    if load_kind(lab.device(name).kind).own_kernel:
        _run_inside(lab, name, _KILL)
        return
    uid = _KILLED_UID[lab.device(name).service]
    for process in _processes(lab, name):
        with suppress(OSError):
            program = (process / "comm").read_text(encoding="utf-8").strip()
            if process.stat().st_uid == uid and program not in _SERVERS:  # the link is to live on
                os.kill(int(process.name), signal.SIGKILL)


def _adbd(state: AdbdState) -> Callable[[LabState, str, float], None]:
    """A state that only the scripted daemon can be in."""

    def apply(lab: LabState, name: str, _: float) -> None:
        state.save(state_file(lab.folder / name))
        lab.processes[name].signal(signal.SIGHUP)

    return apply


def _limit_memory(lab: LabState, name: str, size_bytes: float) -> None:
    limit_memory(lab.name, name, int(size_bytes))


def _charge(lab: LabState, name: str, _: float) -> None:
    (lab.folder / name / CHARGER_FILE).touch()


def _heat(lab: LabState, name: str, heat_k: float) -> None:
    (lab.folder / name / HEAT_FILE).write_text(str(heat_k), encoding="ascii")


def _restore(lab: LabState, name: str, _: float) -> None:
    ask(lab, {"op": "note", "device": name, "fault": "", "value": None})
    ask(lab, {"op": "link", "device": name, "settings": {"restore": True}})
    _signal_service(lab, name, signal.SIGCONT)
    limit_memory(lab.name, name, None)
    (lab.folder / name / HEAT_FILE).unlink(missing_ok=True)
    (lab.folder / name / CHARGER_FILE).unlink(missing_ok=True)
    _run_inside(lab, name, f"mount -o remount,bind,rw $disk; rm -f {_FILLER}")
    if lab.device(name).service == "ssh":
        _restore_sshd(lab, name)
    elif lab.device(name).kind == "adbd":
        _adbd(AdbdState())(lab, name, 0.0)


def _restore_sshd(lab: LabState, name: str) -> None:
    if "FAKETIME" in _run_inside(lab, name, f"cat {_SSHD_CONFIG}"):
        _set_clock(lab, name, 0.0)
    _run_inside(lab, name, "cat > /etc/ssh/authorized_keys", (lab.folder / "identity.pub").read_text(encoding="ascii"))
    host_key = (lab.folder / name / "host_key").read_text(encoding="ascii")
    _run_inside(lab, name, f'key=$(cat); [ "$key" = "$(cat {_HOST_KEY})" ] || {_TAKE_KEY}', host_key)


FAULTS: Mapping[str, Fault] = {
    "cut": Fault(says="reset every connection", apply=_link("cut"), momentary=True),
    "cut-after": Fault(
        says="reset every connection once so much has passed", apply=_link("cut_after_bytes"), dimension="bytes"
    ),
    "blackhole": Fault(says="drop all packets without a word, as a pulled cable does", apply=_link("dark")),
    "blackhole-after": Fault(
        says="the same once so much has passed", apply=_link("dark_after_bytes"), dimension="bytes"
    ),
    "refuse": Fault(says="refuse connections, as when nothing listens there", apply=_link("refusing")),
    "hang": Fault(says="accept connections and never speak", apply=_stop),
    "delay": Fault(says="delay everything by so much each way", apply=_link("delay_s"), dimension="s"),
    "rate": Fault(says="let pass so much a second", apply=_link("rate_bytes_per_s"), dimension="bytes"),
    "jitter": Fault(says="delay each piece by up to so much more, in order", apply=_link("jitter_s"), dimension="s"),
    "loss": Fault(
        says="lose that share of all packets, which TCP sends again", apply=_link("loss_share"), dimension="share"
    ),
    "full": Fault(says="fill the disk", apply=_inside(_FILL)),
    "readonly": Fault(says="make the disk read-only", apply=_inside("mount -o remount,bind,ro $disk")),
    "auth": Fault(says="accept no key any more", apply=_inside(": > /etc/ssh/authorized_keys"), services=("ssh",)),
    "hostkey": Fault(says="get a new host key, as a reinstalled board does", apply=_new_host_key, services=("ssh",)),
    "unauthorized": Fault(
        says="ask for a key and accept none", apply=_adbd(AdbdState(access="keys")), services=("adb",), kinds=("adbd",)
    ),
    "allow": Fault(
        says="the same, and its user says yes to whoever asks",
        apply=_adbd(AdbdState(access="keys", user_allows=True)),
        services=("adb",),
        kinds=("adbd",),
    ),
    "offline": Fault(
        says="accept connections and never finish the greeting",
        apply=_adbd(AdbdState(access="offline")),
        services=("adb",),
        kinds=("adbd",),
    ),
    "clock": Fault(
        says="show new sessions a clock that is off by so much, as -3d",
        apply=_set_clock,
        dimension="s",
        signed=True,
        services=("ssh",),
    ),
    "kill": Fault(says="kill what its user runs, without a warning", apply=_kill, momentary=True),
    "memory": Fault(
        says="leave it so much memory; beyond that the kernel kills a program", apply=_limit_memory, dimension="bytes"
    ),
    "heat": Fault(
        says="make the air around it hotter by so many kelvin, until it slows down",
        apply=_heat,
        dimension="k",
        needs_sensors=True,
    ),
    "charge": Fault(
        says="connect a charger, so that the battery's current is not the phone's",
        apply=_charge,
        services=("adb",),
        kinds=("android",),
    ),
    "reboot": Fault(
        says="end everything, lose the disk, come back after so long",
        apply=_reboot,
        dimension="s",
        default=2.0,
        lasting=True,
        momentary=True,
    ),
    "restore": Fault(says="mend everything above", apply=_restore, momentary=True),
}

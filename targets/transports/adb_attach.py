"""Getting a device to the state `device`, or saying what a person has to do so that it gets there.

A device at HOST:PORT is connected to here, anew where that helps: left alone, a server tries again only every ten
seconds, and after a reboot it believes for long in a connection that is none. A device at a cable is only looked at.
"""

import re
import select
import time
from collections.abc import Mapping

from targets.errors import AuthRefused, DeviceError, EnvironmentFault, Unreachable, UsageError
from targets.records import TargetSpec
from targets.transports.adb_client import AdbClient

DEFAULT_PORT = 5555
# From the first sight of a device in this state until it is believed. A greeting takes a few round trips and one RSA
# signature; a phone whose user has just allowed us needs a third of a second more.
_PATIENCE_S: Mapping[str, float] = {"offline": 2.5, "connecting": 2.5, "authorizing": 2.5, "unauthorized": 1.5}
_LOOK_S = 0.1  # between two looks at the server's list
_CALL_S = 5.0  # for calls that only the server answers


def serial_of(spec: TargetSpec) -> str:
    """What adb calls the target; empty when it is whichever one is attached."""
    if spec.serial or not spec.host:
        return spec.serial
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    return f"{host}:{spec.port or DEFAULT_PORT}"


def attach(client: AdbClient, spec: TargetSpec, *, anew: bool = False) -> str:
    """The serial of the target, which is then ready for commands as far as the server knows.

    `anew` breaks a connection that the server believes in. Raises Unreachable, AuthRefused, UsageError or
    EnvironmentFault.
    """
    serial = serial_of(spec) or _only_one(client, spec)
    if not spec.host:
        _await(client, spec, serial)
        return serial
    state = client.states().get(serial)
    if state == "device" and not anew:
        return serial
    if state:
        client.call("disconnect", serial, limit_s=_CALL_S)
    _connect(client, spec, serial)
    return serial


def _only_one(client: AdbClient, spec: TargetSpec) -> str:
    attached = client.states()
    if len(attached) == 1:
        return next(iter(attached))
    if not attached:
        hint = "plug it in and switch on USB debugging, or give `host:` of its wireless debugging"
        raise Unreachable(f"{spec.name}: no device is attached", hint=hint)
    hint = f"set `serial:` of target {spec.name} to one of them"
    raise UsageError(f"{spec.name}: several devices are attached: {', '.join(attached)}", hint=hint)


def _await(client: AdbClient, spec: TargetSpec, serial: str) -> None:
    """Look at a device that is attached, or not, until what is seen can be believed."""
    since, before = time.monotonic(), ""
    while True:
        states = client.states()
        state = states.get(serial, "")
        if state == "device":
            return
        if state != before:
            since, before = time.monotonic(), state
        if time.monotonic() - since >= _PATIENCE_S.get(state, 0.0):
            raise _absent(spec, serial, states) if not state else explain_state(spec, serial, state)
        time.sleep(_LOOK_S)


def _connect(client: AdbClient, spec: TargetSpec, serial: str) -> None:
    """`adb connect`, watched from beside: it blocks for ten seconds where a look at the list tells after two."""
    deadline = time.monotonic() + spec.connect_timeout_s
    since, before, text = time.monotonic(), "", ""
    with client.running("connect", serial) as connecting:
        assert connecting.stdout
        ended = False
        while True:
            state = client.states().get(serial, "")
            if state == "device":
                return
            if state != before:
                since, before = time.monotonic(), state
            if state and time.monotonic() - since >= _PATIENCE_S.get(state, 0.0):
                if state != "unauthorized":  # there, disconnecting would take the question off the phone's screen
                    client.call("disconnect", serial, limit_s=_CALL_S)
                raise explain_state(spec, serial, state)
            if ended and not state:
                raise _not_connected(spec, serial, text)
            if time.monotonic() > deadline:
                hint = "check that the phone is on, awake and on this network, and that wireless debugging is on"
                raise Unreachable(
                    f"{spec.name}: no answer from {serial} within {spec.connect_timeout_s:g} s", hint=hint
                )
            if not ended and select.select([connecting.stdout], [], [], _LOOK_S)[0]:
                text = connecting.stdout.read().decode("utf-8", "replace").strip()
                ended = True
            elif ended:
                time.sleep(_LOOK_S)


def _not_connected(spec: TargetSpec, serial: str, text: str) -> DeviceError:
    said = re.sub(
        rf"^(failed to connect to|cannot connect to|unable to connect to) '?{re.escape(serial)}'?:? ?", "", text
    )
    if "refused" in text:
        hint = (
            "switch on wireless debugging on the phone and give the port it shows, which changes every time; or with a "
            f"cable once after each start: adb tcpip {DEFAULT_PORT}"
        )
        return Unreachable(f"{spec.name}: nothing listens at {serial}", hint=hint)
    hint = f"correct `host:` and `port:` of target {spec.name}; if Android asks for pairing, once: adb pair HOST:PORT"
    return Unreachable(f"{spec.name}: {serial} cannot be connected to ({said or 'no reason given'})", hint=hint)


def _absent(spec: TargetSpec, serial: str, states: Mapping[str, str]) -> DeviceError:
    there = ", ".join(states) or "none"
    hint = "check the cable and that USB debugging is on; `adb devices` must list it"
    if re.fullmatch(r"\S+:\d+", serial):
        hint = f"for wireless debugging write `host:` and `port:` instead of `serial:` in target {spec.name}"
    return Unreachable(f"{spec.name}: no device {serial} is attached; attached: {there}", hint=hint)


def explain_state(spec: TargetSpec, serial: str, state: str) -> DeviceError | EnvironmentFault:
    """What a state other than `device` means, and what a person must do about it."""
    name = spec.name
    if state == "unauthorized":
        hint = "unlock the phone, answer `Allow USB debugging?` with `Always allow` and `Allow`, then run this again"
        return AuthRefused(f"{name}: the phone has not allowed this computer ({serial} is unauthorized)", hint=hint)
    if state.startswith("no permissions"):
        hint = (
            "apt-get install --no-install-recommends android-sdk-platform-tools-common, add yourself to the group "
            "plugdev, log in again and plug the phone in again"
        )
        return EnvironmentFault(f"{name}: this user may not use the USB device {serial} ({state})", hint=hint)
    if state in ("recovery", "rescue", "sideload", "bootloader", "fastbootd"):
        how = "fastboot reboot" if state == "bootloader" else f"adb -s {serial} reboot"
        return Unreachable(f"{name}: {serial} is in {state}, not in Android", hint=how)
    if spec.host:
        hint = "wake the phone; if that does not help, switch wireless debugging off and on"
    else:
        hint = f"unplug the phone and plug it in again, or: adb -s {serial} reconnect"
    return Unreachable(f"{name}: {serial} is {state}: it does not finish the greeting", hint=hint)

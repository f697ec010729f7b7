"""Why an SSH connection could not be made, in words a person can act on: the one place that reads paramiko's faults."""

import socket

from paramiko import BadHostKeyException, ChannelException, PKey

from targets.errors import AuthRefused, DeviceError, HostKeyRejected, Unreachable
from targets.transports.ssh_link import KeysRefused, StrictConnection, UnknownHostKey


def explain_connecting(fault: BaseException, connection: StrictConnection) -> DeviceError:
    """The error of our family for what opening this connection, of the device or of a jump host, raised."""
    spec = connection.target
    place = f"{connection.host}:{connection.port}"
    limit = f"{spec.connect_timeout_s:g} s"
    if isinstance(fault, UnknownHostKey):
        return _unknown_key(connection, fault)
    if isinstance(fault, BadHostKeyException):
        return _changed_key(connection, fault)
    if isinstance(fault, KeysRefused) and not fault.silent:
        return _refused(connection, fault.tried)
    if isinstance(fault, socket.gaierror):
        hint = f"correct `host:` of target {spec.name}, or check the name service"
        return Unreachable(f"{spec.name}: the name {connection.host} cannot be resolved ({fault.strerror})", hint=hint)
    if isinstance(fault, ConnectionRefusedError):
        hint = "start the SSH server on the device, or correct `port:`"
        return Unreachable(f"{spec.name}: nothing listens at {place}", hint=hint)
    if isinstance(fault, ChannelException):
        hint = "check that the jump host may reach the device"
        return Unreachable(f"{spec.name}: the jump host cannot reach {place} ({fault})", hint=hint)
    hint = "check that the device is on, on this network, and not hung"
    if isinstance(fault, TimeoutError):
        return Unreachable(f"{spec.name}: no answer from {place} within {limit}", hint=hint)
    if isinstance(fault, OSError):
        return Unreachable(f"{spec.name}: {place} cannot be reached ({fault.strerror or fault})", hint=hint)
    why = str(fault) or type(fault).__name__
    return Unreachable(
        f"{spec.name}: {place} accepts connections but did not speak SSH within {limit} ({why})", hint=hint
    )


def _unknown_key(connection: StrictConnection, fault: UnknownHostKey) -> HostKeyRejected:
    host, port = _host_and_port(fault.host)
    name = connection.target.name
    is_device = connection.original_host == connection.target.host
    by_hand = f"ssh-keyscan -p {port} {host} >> {fault.looked_in[0]}"
    return HostKeyRejected(
        f"{name}: the host key of {host} port {port} is not known: it offered {_shown(fault.key)}, "
        f"which is not in {' or '.join(fault.looked_in)}",
        hint=f"compare that fingerprint with `ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub` on the device's own console; "
        f"if it is the same, trust it with: {f'deploy targets trust {name}' if is_device else by_hand}",
    )


def _changed_key(connection: StrictConnection, fault: BadHostKeyException) -> HostKeyRejected:
    looked_in = connection.known_hosts_files()
    host, port = connection.host, int(connection.port)
    known_as = host if port == 22 else f"[{host}]:{port}"
    return HostKeyRejected(
        f"{connection.target.name}: the host key of {host} port {port} has CHANGED: it offered {_shown(fault.key)}, "
        f"{' or '.join(looked_in)} says {_shown(fault.expected_key)}. Someone may be posing as the device",
        hint="if it was reinstalled, check the new fingerprint on its own console, then replace the old key: "
        f"ssh-keygen -f {looked_in[0]} -R '{known_as}'; ssh-keyscan -p {port} {host} >> {looked_in[0]}",
    )


def _refused(connection: StrictConnection, tried: list[str]) -> AuthRefused:
    name = connection.target.name
    return AuthRefused(
        f"{name}: {connection.user}@{connection.host}:{connection.port} accepted none of the keys tried: "
        f"{', '.join(tried) or 'there were none'}",
        hint=f"add a public key to ~/.ssh/authorized_keys of {connection.user} on the device (ssh-copy-id), or set "
        f"`identity_file:` or `user:` of target {name}",
    )


def _shown(key: PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"


def _host_and_port(known_as: str) -> tuple[str, str]:
    """Host and port of known_hosts' notation: `[host]:port`, or `host` for port 22."""
    host, _, port = known_as.removeprefix("[").partition("]:")
    return host, port or "22"

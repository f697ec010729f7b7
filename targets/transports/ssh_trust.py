"""The host key that a device offers, and trusting it: one line in a known_hosts file, after a person has looked."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from paramiko import HostKeys, PKey, SSHException, Transport

from targets.errors import HostKeyRejected, UsageError
from targets.records import TargetSpec
from targets.transports.ssh_faults import explain_connecting
from targets.transports.ssh_link import NotConnected, StrictConnection, dial, known_keys, make_connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What a device says its key is; nothing has been proved but that it holds the private half."""

    name: str
    known_as: str  # in known_hosts' notation: `host`, or `[host]:port`
    kind: str  # ssh-ed25519 …
    fingerprint: str  # SHA256:…
    line: str  # for a known_hosts file
    state: Literal["new", "known", "changed"]
    file: Path  # where trusting it would write


def offered_key(spec: TargetSpec) -> Offered:
    """Ask the device for its key without logging in; its jump hosts must be trusted already.

    Raises UsageError for a target that is not reached over SSH, Unreachable or HostKeyRejected (of a jump host).
    """
    if spec.transport != "ssh":
        raise UsageError(f"{spec.name}: only SSH devices have host keys", hint="choose those with `transport=ssh`")
    connection = make_connection(spec)
    try:
        with _spoken(connection) as transport:
            key = transport.get_remote_server_key()
    except NotConnected as fault:
        raise explain_connecting(fault.why, fault.connection) from fault.why
    except (OSError, EOFError, SSHException) as fault:
        raise explain_connecting(fault, connection) from fault
    finally:
        connection.close()
    known_as = connection.known_as
    files = [Path(path) for path in connection.known_hosts_files()]
    return Offered(
        name=spec.name,
        known_as=known_as,
        kind=key.get_name(),
        fingerprint=key.fingerprint,
        line=f"{known_as} {key.get_name()} {key.get_base64()}",
        state=_state(known_keys(files), known_as, key),
        file=files[0],
    )


def trust(offered: Offered) -> None:
    """Add the key to the file. Raises HostKeyRejected when the file has another one for this host."""
    if offered.state == "changed":
        raise HostKeyRejected(
            f"{offered.name}: {offered.known_as} is known with another key than {offered.kind} {offered.fingerprint}. "
            "Someone may be posing as the device",
            hint="if it was reinstalled, take the old key out first: "
            f"ssh-keygen -f {offered.file} -R '{offered.known_as}'",
        )
    if offered.state == "known":
        return
    offered.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(offered.file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(handle, "r+b") as file:
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(offered.line.encode() + b"\n")  # one write: appending lines from several processes cannot mix


@contextlib.contextmanager
def _spoken(connection: StrictConnection) -> Iterator[Any]:
    """A transport that has exchanged keys and nothing more."""
    limit_s = connection.target.connect_timeout_s
    if isinstance(connection.gateway, StrictConnection):
        connection.gateway.open()
        sock: Any = connection.open_gateway()
    elif connection.gateway:
        sock = connection.open_gateway()
    else:
        sock = dial(connection.host, int(connection.port), limit_s)
    transport = Transport(sock)
    transport.banner_timeout = limit_s
    try:
        transport.start_client(timeout=limit_s)
        yield transport
    finally:
        transport.close()


def _state(known: HostKeys, known_as: str, key: PKey) -> Literal["new", "known", "changed"]:
    entry = known.lookup(known_as)
    if not entry:
        return "new"
    return "known" if any(own == key for own in entry.values()) else "changed"

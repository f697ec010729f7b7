"""The one order in which a file gets onto a device: temporary name, hash there, atomic rename.

Whatever goes wrong on the way, no file under a live name is partial: it appears complete and hashed, or not at all.
"""

import re
from contextlib import suppress
from pathlib import Path

from targets.agent.session import Session
from targets.errors import ConnectionLost, DeployError, DeviceTimeout, DiskFull, InputError
from targets.transport import Progress, Transport

# Room left for the agent, its locks and the file system's own growth.
RESERVE_BYTES = 1 << 20


def digest_hex(digest: str) -> str:
    """The 64 hex digits of a SHA-256 digest, written with or without `sha256:`."""
    found = re.fullmatch(r"(?:sha256:)?([0-9a-f]{64})", digest)
    if not found:
        raise ValueError(f"not a SHA-256 digest: {digest!r}")
    return found.group(1)


def deliver(transport: Transport, session: Session, path: Path, digest: str, progress: Progress | None = None) -> bool:
    """Bring the file to the device unless it is there; whether anything was sent.

    Raises DiskFull before sending when it cannot fit, HashMismatch when it arrived different, and what the link raises.
    """
    digest, step_s = digest_hex(digest), transport.spec.step_timeout_s
    try:
        source = path.open("rb")
    except OSError as fault:
        raise InputError(f"{path} cannot be read: {fault.strerror}") from fault
    with source:
        size = path.stat().st_size
        found = session.request("have", step_s, {"blobs": {digest: size}})
        if digest in found["present"]:
            return False
        free = int(found["free_disk_bytes"])
        if size + RESERVE_BYTES > free:
            raise DiskFull(
                f"{transport.spec.name}: {path.name} needs {size:,} bytes, {free:,} are free on the device",
                hint=f"free space under {transport.root} on {transport.spec.name}, or set `root:` to a larger disk",
            )
        part = f"{session.parts}/{digest}.part"
        try:
            transport.write(source, size, part, progress)
        except (ConnectionLost, DeviceTimeout):
            session.close()  # the agent removes its parts when it ends; if it was killed, the next one sweeps them
            raise
        except DeployError:
            with suppress(DeployError):  # give the space back at once; the first error is the one to tell
                session.request("discard", step_s, {"sha256": digest})
            raise
    session.request("commit", step_s, {"sha256": digest})
    return True

"""The one order in which a file gets onto a device: temporary name, hash there, atomic rename.

Whatever goes wrong on the way, no file under a live name is partial: it appears complete and hashed, or not at all.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from targets.errors import ConnectionLost, DeployError, DeviceTimeout, DiskFull, InputError
from targets.transport import Progress, Transport

# Room left for the agent, its locks and the file system's own growth.
RESERVE_BYTES = 1 << 20


class Store(Protocol):
    """The files on a device, each under its own digest; seen through an open session."""

    parts: str  # the session's own folder on the device, for files on their way in

    @property
    def over(self) -> bool:
        """Whether the session has ended."""

    def have(self, digest: str, size_bytes: int) -> tuple[bool, int]:
        """Whether the whole file is there; if not, how many bytes are free."""

    def commit(self, digest: str) -> None:
        """Give the part its live name if it has the digest; else remove it and raise HashMismatch."""

    def discard(self, digest: str) -> None:
        """Remove the part."""

    def close(self) -> None:
        """End the session and remove its parts, as far as the device can still be reached."""


def digest_hex(digest: str) -> str:
    """The 64 hex digits of a SHA-256 digest, written with or without `sha256:`."""
    found = re.fullmatch(r"(?:sha256:)?([0-9a-f]{64})", digest)
    if not found:
        raise ValueError(f"not a SHA-256 digest: {digest!r}")
    return found.group(1)


def deliver(transport: Transport, store: Store, path: Path, digest: str, progress: Progress | None = None) -> bool:
    """Bring the file to the device unless it is there; whether anything was sent.

    Raises DiskFull before sending when it cannot fit, HashMismatch when it arrived different, and what the link raises.
    """
    digest = digest_hex(digest)
    try:
        source = path.open("rb")
    except OSError as fault:
        raise InputError(f"{path} cannot be read: {fault.strerror}") from fault
    with source:
        size = path.stat().st_size
        present, free = store.have(digest, size)
        if present:
            return False
        if size + RESERVE_BYTES > free:
            raise DiskFull(
                f"{transport.spec.name}: {path.name} needs {size:,} bytes, {free:,} are free on the device",
                hint=f"free space under {transport.root} on {transport.spec.name}, or set `root:` to a larger disk",
            )
        part = f"{store.parts}/{digest}.part"
        try:
            transport.write(source, size, part, progress)
        except (ConnectionLost, DeviceTimeout):
            store.close()  # which removes its parts where it can; else the next session sweeps them
            raise
        except DeployError:
            with suppress(DeployError):  # give the space back at once; the first error is the one to tell
                store.discard(digest)
            raise
    store.commit(digest)
    return True

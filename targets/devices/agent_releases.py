"""The release store of a device on which our agent runs: everything is decided there."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from targets.agent.edge.manifest import MAX_MANIFEST_BYTES
from targets.agent.session import Session
from targets.delivery import deliver
from targets.errors import AgentFailed, InputError
from targets.releases import HookRun, Installed, Sent
from targets.transport import Progress

# The agent ends a hook at its deadline and says so; only when it cannot do that either, the host gives up.
_GRACE_S = 15.0


class AgentReleases:
    """`targets.releases.Releases`, asked of the agent."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def installed(self) -> Installed:
        found = self._session.step("installed", {})
        try:
            return _decoded(found)
        except (KeyError, TypeError, ValueError) as fault:
            raise AgentFailed(
                f"{self._session.name}: what it says of its releases cannot be read ({fault!r})"
            ) from fault

    def transfer(
        self, files: Mapping[str, Path], bases: Mapping[str, Path] | None = None, progress: Progress | None = None
    ) -> Sent:
        try:
            return deliver(self._session, files, bases, progress)
        except KeyboardInterrupt:
            self._session.close()
            raise

    def stage(self, manifest: bytes, signature: bytes, device_class: str) -> None:
        if len(manifest) > MAX_MANIFEST_BYTES:
            raise InputError(f"a manifest of {len(manifest):,} bytes; devices take up to {MAX_MANIFEST_BYTES:,}")
        fields = {"manifest": b64encode(manifest).decode(), "signature": b64encode(signature).decode()}
        self._session.step("stage", {**fields, "class": device_class})

    def activate(self, release: str, *, allow_downgrade: bool = False) -> None:
        self._session.step("activate", {"release": release, "allow_downgrade": allow_downgrade})

    def revert(self, to: str) -> None:
        self._session.step("revert", {"release": to})

    def confirm(self, release: str) -> None:
        self._session.step("confirm", {"release": release})

    def prune(self, keep: int) -> int:
        return int(self._session.step("prune", {"keep": keep})["freed_bytes"])

    def trust(self, public_key: bytes, signature: bytes = b"") -> None:
        self._session.step("trust", {"key": public_key.hex(), "signature": signature.hex()})

    def lease(self, owner: str, seconds: float) -> None:
        self._session.step("lease", {"owner": owner, "seconds": seconds})

    def release_lease(self, owner: str) -> None:
        self._session.step("release_lease", {"owner": owner})

    def hook(self, argv: Sequence[str], deadline_s: float) -> HookRun:
        fields = {"argv": list(argv), "deadline_s": deadline_s}
        found = self._session.request("hook", deadline_s + _GRACE_S, fields)
        return HookRun(exit_code=int(found["exit_code"]), output=str(found["output"]))


def _decoded(found: Mapping[str, Any]) -> Installed:
    return Installed(
        current=str(found["current"]),
        previous=str(found["previous"]),
        confirmed=str(found["confirmed"]),
        releases=tuple(map(str, found["releases"])),
        floor={str(name): int(sequence) for name, sequence in found["floor"].items()},
        keys=tuple(map(str, found["keys"])),
        free_disk_bytes=int(found["free_disk_bytes"]),
        boot_id=str(found["boot_id"]),
        lease_owner=str(found["lease_owner"]),
        lease_left_s=float(found["lease_left_s"]),
    )

"""The releases on a device: what is installed there, how one gets there, and how the device changes over to it.

The device's disk is the truth. Every operation may be repeated after a crash at any point, on either side, and then
ends in the same state; none leaves anything incomplete under a live name.

ROOT/blobs/sha256/<digest>    complete and hashed, never changed
ROOT/releases/<id>/           manifest.json, manifest.sig, staged.json, the model under its own name, and what holds its
                              weights under the digests by which it asks for them; all or nothing
ROOT/current                  → releases/<id>: the one in use
ROOT/previous                 → releases/<id>: the last confirmed one before it, to go back to
ROOT/confirmed                → releases/<id>: the last one that its device has proved
ROOT/floor.json               {name: the highest sequence that was ever confirmed}
ROOT/trust/<public key>       the keys whose signatures count
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from targets.transport import Progress

# What a trusted key signs to vouch for another: a prefix of its own, so that no other signature can be taken for it.
TRUST_PREFIX = b"edge-deploy trust 1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What is on the device, read from its disk. Releases and keys are 64 hex digits; "" stands for none."""

    current: str
    previous: str  # the last confirmed release other than `current`
    confirmed: str
    releases: tuple[str, ...]  # complete ones, sorted
    floor: Mapping[str, int]  # name → sequence; a smaller one is a downgrade
    keys: tuple[str, ...]  # without any, the device takes unsigned releases
    free_disk_bytes: int
    boot_id: str  # another one: the device has restarted; "" where it cannot be told
    lease_owner: str
    lease_left_s: float
    note: str = ""  # what such a device cannot do itself

    @property
    def pending(self) -> str:
        """The release that was activated but not confirmed yet."""
        return self.current if self.current != self.confirmed else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a transfer cost."""

    bytes_on_wire: int  # of file contents, as compressed or as deltas; without SSH's own few percent
    files_sent: int
    delta_files: int  # of these, sent as the difference to a file that was there
    resumed_bytes: int  # of contents that an earlier, interrupted transfer had left there


@dataclass(frozen=True, slots=True, kw_only=True)
class HookRun:
    """How a program of the device's owner ended."""

    exit_code: int
    output: str  # the last of what it said, stdout and stderr together


class Releases(Protocol):
    """The release store of a connected device, had as `device.releases`.

    Besides what is named, every operation raises DeviceTimeout, ConnectionLost, AgentFailed, DiskFull or ReadOnly; and
    every one that changes something raises Leased while another owner holds the device. On a device without Python,
    the host checks signatures against the device's keys.
    """

    def installed(self) -> Installed:
        """What the device's disk says."""

    def transfer(
        self,
        files: Mapping[str, Path],
        bases: Mapping[str, Path] | None = None,
        progress: Progress | None = None,
    ) -> Sent:
        """Bring files to the device, by digest: only what is missing, resumed, compressed or as a delta when it pays.

        `bases` are the host's copies of files that are probably on the device already, such as those of the release
        before. `progress(done_bytes, total_bytes)` counts bytes on the wire.
        Raises InputError (a file cannot be read), DiskFull before anything is sent, HashMismatch.
        """

    def stage(self, manifest: bytes, signature: bytes, device_class: str) -> None:
        """Make releases/<id>/ of files that are there; nothing changes for whoever uses `current`.

        Raises SignatureRefused (unsigned, or by a key the device does not trust), HashMismatch (a file is missing or
        has rotted: transfer it again), ReleaseRefused (the manifest makes no sense there, or has no such class).
        """

    def activate(self, release: str, *, allow_downgrade: bool = False) -> None:
        """Switch `current` to a staged release, in one atomic step; it is pending until confirmed.

        Signature and hashes are checked again. Raises NotStaged, SignatureRefused, HashMismatch, Downgrade.
        """

    def revert(self, to: str) -> None:
        """Switch `current` back to the previous or confirmed release, or to none at all ("").

        Its hashes are checked, its sequence is not: this is the way back. Raises NotStaged (also for any release that
        is neither of the two), HashMismatch.
        """

    def confirm(self, release: str) -> None:
        """Record that the current release has proved itself: it is no longer pending, and the floor rises to it.

        Raises NotStaged when it is not the current one.
        """

    def prune(self, keep: int) -> int:
        """Remove all but the `keep` newest releases, and files that nothing uses; how many bytes that has freed.

        Current, previous and confirmed releases stay whatever `keep` says, and so do files of open sessions and
        those that were asked for within a day.
        """

    def trust(self, public_key: bytes, signature: bytes = b"") -> None:
        """Have the device trust a raw Ed25519 public key (32 bytes).

        The first key is taken as it comes, for the link is authenticated. A further one needs the signature of a
        trusted key over TRUST_PREFIX + public_key, else SignatureRefused. The owner of a device revokes a key by
        removing its file from ROOT/trust there.
        """

    def lease(self, owner: str, seconds: float) -> None:
        """Have the device to oneself for so long, counted by the device; again by the same owner: for so long from now.

        From then on this session acts for the owner. A lease outlives a restart of the device. Raises Leased.
        """

    def release_lease(self, owner: str) -> None:
        """Give the device back; nothing happens when the owner does not hold it."""

    def hook(self, argv: Sequence[str], deadline_s: float) -> HookRun:
        """Run a program that the device's owner has put there, such as one that restarts the service.

        argv[0] is an absolute path outside ROOT, that nobody but root or the login user can write. The program finds
        EDGE_DEPLOY_ROOT, EDGE_DEPLOY_CURRENT (the folder) and EDGE_DEPLOY_RELEASE in its environment.
        Raises HookRefused when there is no such file or others could have written it; DeviceTimeout.
        """

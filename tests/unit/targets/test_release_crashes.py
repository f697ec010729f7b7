"""Any order of operations on the device's release store, each killed at any step on the file system.

The real code of the agent, in processes that really die (tests/crashing_agent.py). Not played here: a power cut that
loses what was written but not flushed.
"""

import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from releases import MadeRelease, make_release

from targets.agent.edge.blobs import Blobs
from targets.agent.edge.releases import Releases
from targets.releases import TRUST_PREFIX

PROGRAM = Path(__file__).parents[2] / "crashing_agent.py"
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(2)]
# Who has signed which release; the third of them nobody.
SIGNERS = (0, 0, None, 1, 0, 1)

releases = st.integers(0, len(SIGNERS) - 1)
# An operation takes some 5 to 60 steps; None: it is not killed.
crashes = st.one_of(st.none(), st.integers(0, 60))
State = dict[str, Any]


class Device(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        # In memory where there is such a place: thousands of flushes take minutes on a disk.
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.root = self.folder / "root"
        self.made = [
            make_release(self.folder, number, f"model {number}".encode() * 100) for number in range(len(SIGNERS))
        ]
        self.sequences = {release.id: number for number, release in enumerate(self.made)}
        self.highest: dict[str, int] = {}
        self.crashed = False
        argv = [sys.executable, "-B", str(PROGRAM), str(self.root)]
        self.agent = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask("have", blobs={})

    def teardown(self) -> None:
        assert self.agent.stdin and self.agent.stdout
        self.agent.stdin.close()
        self.agent.stdout.close()
        assert self.agent.wait(10) == 0
        shutil.rmtree(self.folder)

    def ask(self, op: str, crash: int | None = None, payload: bytes = b"", **fields: object) -> State:
        assert self.agent.stdin and self.agent.stdout
        request = {"op": op, "crash_after": crash, "payload": payload.hex(), **fields}
        self.agent.stdin.write(json.dumps(request) + "\n")
        self.agent.stdin.flush()
        reply: State = json.loads(self.agent.stdout.readline())
        assert "died" not in reply
        assert reply.get("error", {}).get("code") != "agent", reply
        return reply

    def state(self) -> State:
        found = Releases(Blobs(self.root)).installed({})
        return {name: found[name] for name in ("current", "previous", "confirmed", "releases", "floor", "keys")}

    def until_done(self, wanted: State | str, op: str, crash: int | None, **fields: object) -> None:
        """Do it, killed once perhaps; then again, for which it must end as if it had never been killed.

        `wanted` is what must have changed, or the code of the refusal.
        """
        before = self.state()
        reply = self.ask(op, crash, **fields)
        self.crashed = bool(reply.get("crashed"))
        if self.crashed:
            between = self.state()
            for name, found in between.items():
                assert found in (before[name], wanted[name] if isinstance(wanted, dict) and name in wanted else found)
            reply = self.ask(op, None, **fields)
        if isinstance(wanted, str):
            assert reply["error"]["code"] == wanted, reply
            assert self.state() == before
        else:
            assert "ok" in reply, reply
            assert self.state() == {**before, **wanted}

    # --- operations ---

    @rule(number=releases, crash=crashes, came=st.floats(0, 1))
    def transfer(self, number: int, crash: int | None, came: float) -> None:
        """Of one file after the other, some lose their link half-way."""
        for digest, path in self.made[number].files.items():
            content = path.read_bytes()
            common = {"sha256": digest, "size_bytes": len(content), "framed": False, "base": ""}
            half = content[: int(came * len(content))]
            self.ask("receive", crash, half, offset=0, wire_bytes=len(content), **common)
            found = self.ask("have", crash, blobs={digest: len(content)})
            if found.get("crashed"):
                found = self.ask("have", blobs={digest: len(content)})
            if digest in found["ok"]["present"]:
                continue
            # Each request is a session of its own here, so that what one has claimed has gone back when the next asks.
            held, hashed = found["ok"]["held"].get(digest, (0, sha256(b"").hexdigest()))
            assert hashed == sha256(content[:held]).hexdigest()
            self.ask("receive", crash, content, offset=0, wire_bytes=len(content), **common)

    def complete(self, number: int) -> bool:
        return all((self.root / "blobs" / "sha256" / digest).exists() for digest in self.made[number].files)

    def trusted(self, release: MadeRelease, keys: list[str]) -> bool:
        signer = SIGNERS[self.made.index(release)]
        return not keys or (signer is not None and KEYS[signer].public_key().public_bytes_raw().hex() in keys)

    @rule(number=releases, crash=crashes)
    def stage(self, number: int, crash: int | None) -> None:
        release, before, signer = self.made[number], self.state(), SIGNERS[number]
        signature = b"" if signer is None else release.signed_by(KEYS[signer])
        wanted: State | str = {"releases": sorted({*before["releases"], release.id})}
        if not self.complete(number):
            wanted = "hash-mismatch"
        if not self.trusted(release, before["keys"]):
            wanted = "signature"
        fields = {"manifest": _base64(release.manifest), "signature": _base64(signature), "class": "default"}
        self.until_done(wanted, "stage", crash, **fields)

    @rule(number=releases, crash=crashes, allow=st.booleans())
    def activate(self, number: int, crash: int | None, allow: bool) -> None:
        release, before = self.made[number], self.state()
        wanted: State | str = {"current": release.id}
        if release.id not in before["releases"]:
            wanted = "not-staged"
        elif not self.trusted(release, before["keys"]):
            wanted = "signature"
        elif before["current"] == release.id:
            wanted = {}
        elif number < before["floor"].get("net", 0) and not allow:
            wanted = "downgrade"
        elif before["current"] and before["current"] == before["confirmed"]:
            wanted = {"current": release.id, "previous": before["current"]}
        else:
            # The link stays; it tells nothing only while it names the current one.
            link = _linked(self.root / "previous")
            wanted = {"current": release.id, "previous": "" if link == release.id else link}
        self.until_done(wanted, "activate", crash, release=release.id, allow_downgrade=allow)

    @rule(where=st.sampled_from(["previous", "confirmed", "current", ""]), crash=crashes)
    def revert(self, where: str, crash: int | None) -> None:
        before = self.state()
        to = before[where] if where else ""
        link = _linked(self.root / "previous")
        wanted = {"current": to, "previous": "" if link == to else link}
        self.until_done(wanted, "revert", crash, release=to)

    @rule(number=releases)
    def revert_elsewhere(self, number: int) -> None:
        before = self.state()
        release = self.made[number].id
        if release not in {_linked(self.root / name) for name in ("current", "previous", "confirmed")}:
            self.until_done("not-staged", "revert", None, release=release)
        assert self.state()["current"] in (before["current"], release)

    @precondition(lambda self: self.state()["current"])
    @rule(crash=crashes)
    def confirm(self, crash: int | None) -> None:
        before = self.state()
        floor = max(before["floor"].get("net", -1), self.sequences[before["current"]])
        wanted = {"confirmed": before["current"], "floor": {"net": floor}}
        self.until_done(wanted, "confirm", crash, release=before["current"])

    @rule(keep=st.integers(0, 4), crash=crashes)
    def prune(self, keep: int, crash: int | None) -> None:
        before = self.state()
        used = {_linked(self.root / name) for name in ("current", "previous", "confirmed")} - {""}
        spare = sorted(set(before["releases"]) - used, key=lambda release: -self.sequences[release])
        wanted = {"releases": sorted([*used, *spare[: max(0, keep - len(used))]])}
        reply = self.ask("prune", crash, keep=keep)
        self.crashed = bool(reply.get("crashed"))
        if self.crashed:
            assert set(wanted["releases"]) <= set(self.state()["releases"]) <= set(before["releases"])
            self.ask("prune", None, keep=keep)
        assert self.state() == {**before, **wanted}

    @rule(number=st.integers(0, 1), crash=crashes)
    def trust(self, number: int, crash: int | None) -> None:
        before = self.state()
        key = KEYS[number].public_key().public_bytes_raw()
        word = KEYS[1 - number].sign(TRUST_PREFIX + key) if before["keys"] else b""
        self.until_done(
            {"keys": sorted({*before["keys"], key.hex()})}, "trust", crash, key=key.hex(), signature=word.hex()
        )

    # --- what must be true at every moment ---

    @invariant()
    def nothing_incomplete_has_a_live_name(self) -> None:
        for blob in (self.root / "blobs" / "sha256").glob("*"):
            assert sha256(blob.read_bytes()).hexdigest() == blob.name
        folders = [path for path in (self.root / "releases").glob("*") if path.suffix != ".new"]
        for folder in folders:
            release = next(made for made in self.made if made.id == folder.name)
            assert (folder / "manifest.json").read_bytes() == release.manifest
            assert (folder / "model.tflite").read_bytes() == release.model.read_bytes()
            assert (folder / "manifest.sig").exists() and (folder / "staged.json").exists()
        for name in ("current", "previous", "confirmed"):
            link = self.root / name
            assert not link.is_symlink() or link.resolve() in [folder.resolve() for folder in folders]

    @invariant()
    def the_floor_never_goes_down(self) -> None:
        path = self.root / "floor.json"
        floor = json.loads(path.read_bytes()) if path.exists() else {}
        assert all(floor.get(name, -1) >= sequence for name, sequence in self.highest.items())
        self.highest = floor

    @invariant()
    def files_of_releases_in_use_are_there(self) -> None:
        for name in ("current", "previous", "confirmed"):
            release = _linked(self.root / name)
            if release:
                assert self.complete(self.sequences[release])


def _linked(path: Path) -> str:
    return path.readlink().name if path.is_symlink() else ""


def _base64(content: bytes) -> str:
    import base64

    return base64.b64encode(content).decode()


TestDevice = Device.TestCase
TestDevice.settings = settings(
    max_examples=10,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # Each step is a process: to find the shortest way to a failure would take minutes.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


def test_every_step_of_an_update_is_one_at_which_it_may_die() -> None:
    """Not any order, but every single step: an update, the way back, and what comes after."""
    device = Device()
    saved = device.folder / "saved"

    def whichever_step(operation: Callable[[int], None]) -> int:
        """Kill it at its first step, its second one, and so on until it gets through; how many that were."""
        for step in itertools.count():
            shutil.rmtree(saved, ignore_errors=True)
            shutil.copytree(device.root, saved, symlinks=True)
            operation(step)
            device.nothing_incomplete_has_a_live_name()
            device.files_of_releases_in_use_are_there()
            if not device.crashed:
                return step
            shutil.rmtree(device.root)
            saved.rename(device.root)
        raise AssertionError

    for number in (0, 1):
        device.transfer(number, None, 1.0)
    device.stage(1, None)
    try:
        steps = [
            whichever_step(lambda step: device.trust(0, step)),
            whichever_step(lambda step: device.stage(0, step)),
            whichever_step(lambda step: device.activate(0, step, False)),
            whichever_step(lambda step: device.confirm(step)),
            whichever_step(lambda step: device.activate(1, step, False)),
            whichever_step(lambda step: device.revert("previous", step)),
            whichever_step(lambda step: device.prune(0, step)),
        ]
        assert min(steps) >= 3, "each was killed"
    finally:
        device.teardown()

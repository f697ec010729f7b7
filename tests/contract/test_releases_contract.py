"""What a device's release store must do, over this machine and over a real SSH server."""

import fcntl
import hashlib
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from phones import phone
from releases import MadeRelease, make_release
from sshd import Sshd

from targets.device import Device, connect
from targets.devices import shell_releases
from targets.errors import (
    ConnectionLost,
    DeployError,
    DeviceTimeout,
    DiskFull,
    Downgrade,
    HashMismatch,
    HookRefused,
    Leased,
    NotStaged,
    ReleaseRefused,
    SignatureRefused,
)
from targets.records import TargetSpec
from targets.releases import TRUST_PREFIX

# The agent decides the same whatever leads to it: over both is run what the link has a part in.
everywhere = pytest.mark.parametrize("spec", ["local", "ssh"], indirect=True)
# Without Python the host decides, so that all decisions are asked for again.
phones_too = pytest.mark.parametrize("spec", ["local", "adb"], indirect=True)
and_phones = pytest.mark.parametrize("spec", ["local", "ssh", "adb"], indirect=True)


@pytest.fixture(scope="module")
def shared_phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with phone(tmp_path_factory.mktemp("phone")) as (adb, port), pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", adb.environment["ANDROID_ADB_SERVER_PORT"])
        yield port


@pytest.fixture
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> TargetSpec:
    found = TargetSpec(name="dev", root=str(tmp_path / "device root"), python=sys.executable, step_timeout_s=30.0)
    if getattr(request, "param", "local") == "local":
        return found
    if request.param == "adb":
        port: int = request.getfixturevalue("shared_phone")
        return replace(found, transport="adb", host="127.0.0.1", port=port, python="")
    server: Sshd = request.getfixturevalue("shared_sshd")
    login = {"identity_file": str(server.identity), "known_hosts": str(server.known_hosts)}
    return replace(found, transport="ssh", host="127.0.0.1", port=server.port, **login)


Connect = Callable[[], Device]


@pytest.fixture
def another(spec: TargetSpec, tmp_path: Path) -> Connect:
    return lambda: connect(spec, state=tmp_path / "state")


@pytest.fixture
def device(another: Connect) -> Iterator[Device]:
    with another() as connected:
        yield connected


def root(device: Device) -> Path:
    return Path(device.spec.root)


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def proved(device: Device, release: MadeRelease, signature: bytes = b"") -> str:
    release.on(device, signature)
    device.releases.activate(release.id)
    device.releases.confirm(release.id)
    return release.id


@and_phones
def test_a_release_becomes_current_and_the_one_before_it_previous(
    device: Device, another: Connect, tmp_path: Path
) -> None:
    store, first, second = device.releases, make_release(tmp_path, 1), make_release(tmp_path, 2)
    assert (store.installed().current, store.installed().releases, store.installed().pending) == ("", (), "")
    proved(device, first)
    second.on(device)
    assert store.installed().current == first.id
    store.activate(second.id)
    with another() as afresh:  # what is installed is read from the disk
        found = afresh.releases.installed()
    assert (found.current, found.previous, found.confirmed, found.pending) == (second.id, first.id, first.id, second.id)
    assert found.floor == {"net": 1} and found.releases == tuple(sorted((first.id, second.id)))
    store.confirm(second.id)
    found = store.installed()
    assert (found.confirmed, found.pending, found.floor) == (second.id, "", {"net": 2})
    live = root(device) / "current"
    assert str(live.readlink()) == f"releases/{second.id}"
    assert (live / "model.tflite").read_bytes() == second.model.read_bytes()
    assert (live / "manifest.json").read_bytes() == second.manifest
    modes = {path.name: path.stat().st_mode & 0o777 for path in live.iterdir()}
    assert set(modes.values()) == {0o644} and len(modes) == 4


@and_phones
def test_a_model_finds_its_weights_in_its_folder(device: Device, tmp_path: Path) -> None:
    """They lie beside it under the name that it has for them, are proved at every switch, and stay while it does."""
    weights = tmp_path / "weights"
    weights.write_bytes(os.urandom(20_000))
    name = hashlib.sha256(weights.read_bytes()).hexdigest()
    made = make_release(tmp_path, 1, beside={name: 20_000})
    store = device.releases
    store.transfer(made.files)
    with pytest.raises(HashMismatch, match=name):
        store.stage(made.manifest, b"", "default")
    store.transfer({name: weights})
    store.stage(made.manifest, b"", "default")
    store.activate(made.id)
    store.confirm(made.id)
    place = root(device) / "current" / name
    assert place.read_bytes() == weights.read_bytes() and not place.is_symlink()
    old = time.time() - 2 * 24 * 3600
    os.utime(root(device) / "blobs" / "sha256" / name, (old, old))
    store.prune(1)
    assert (root(device) / "blobs" / "sha256" / name).exists()
    place.chmod(0o644)
    place.write_bytes(bytes(20_000))
    with pytest.raises(HashMismatch, match="has changed: transfer and stage it again"):
        store.activate(made.id)


@phones_too
def test_going_back_needs_no_leave_of_the_floor(device: Device, tmp_path: Path) -> None:
    store, made = device.releases, [make_release(tmp_path, number) for number in (1, 2, 3)]
    proved(device, made[0])
    proved(device, made[1])
    made[2].on(device)
    store.activate(made[2].id)
    store.revert(made[1].id)
    assert (store.installed().current, store.installed().pending) == (made[1].id, "")
    with pytest.raises(NotStaged, match="was not in use here"):
        store.revert(made[0].id)
    store.revert("")
    found = store.installed()
    assert (found.current, found.confirmed, found.floor) == ("", made[1].id, {"net": 2})
    store.revert("")
    store.revert(made[1].id)
    assert store.installed().current == made[1].id


@phones_too
def test_an_older_release_needs_leave(device: Device, tmp_path: Path) -> None:
    store, old, new = device.releases, make_release(tmp_path, 4), make_release(tmp_path, 7)
    proved(device, new)
    old.on(device)
    with pytest.raises(Downgrade, match="net 4 is older than 7") as caught:
        store.activate(old.id)
    assert caught.value.hint
    assert store.installed().current == new.id
    store.activate(old.id, allow_downgrade=True)
    store.confirm(old.id)
    assert store.installed().floor == {"net": 7}, "the floor never goes down"


@phones_too
def test_what_was_not_staged_cannot_be_used(device: Device, tmp_path: Path) -> None:
    store, release = device.releases, make_release(tmp_path, 1)
    for step in (store.activate, store.revert, store.confirm):
        with pytest.raises(NotStaged):
            step(release.id)
    release.on(device)
    with pytest.raises(NotStaged, match="is not the current one"):
        store.confirm(release.id)
    for name in ("../../etc", "", "A" * 64):
        with pytest.raises(DeployError):
            store.activate(name)


@phones_too
def test_the_device_itself_checks_who_signed(device: Device, tmp_path: Path) -> None:
    store, owner, stranger = device.releases, Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    early, release = make_release(tmp_path, 1), make_release(tmp_path, 2)
    early.on(device)  # no key yet: taken unsigned
    store.trust(raw(owner))
    assert store.installed().keys == (raw(owner).hex(),)
    with pytest.raises(SignatureRefused, match="unsigned"):
        store.activate(early.id)
    store.transfer(release.files)
    signature = release.signed_by(owner)
    for wrong in (b"", release.signed_by(stranger), bytes([signature[0] ^ 1]) + signature[1:], early.signed_by(owner)):
        with pytest.raises(SignatureRefused):
            store.stage(release.manifest, wrong, "default")
    assert store.installed().releases == (early.id,)
    store.stage(release.manifest, signature, "default")
    store.activate(release.id)
    # What was staged unsigned may be signed later, also while it is in use.
    store.stage(early.manifest, early.signed_by(owner), "default")
    store.activate(early.id)
    assert store.installed().current == early.id


@phones_too
def test_a_second_key_needs_the_word_of_the_first(device: Device) -> None:
    store, owner, next_one, stranger = device.releases, *(Ed25519PrivateKey.generate() for _ in range(3))
    store.trust(raw(owner))
    store.trust(raw(owner))
    for word in (b"", stranger.sign(TRUST_PREFIX + raw(next_one)), owner.sign(raw(next_one))):
        with pytest.raises(SignatureRefused, match="vouched"):
            store.trust(raw(next_one), word)
    store.trust(raw(next_one), owner.sign(TRUST_PREFIX + raw(next_one)))
    assert store.installed().keys == tuple(sorted((raw(owner).hex(), raw(next_one).hex())))
    with pytest.raises(SignatureRefused, match="no Ed25519"):
        store.trust(bytes(32), owner.sign(TRUST_PREFIX + bytes(32)))


@phones_too
def test_a_file_that_is_missing_or_has_rotted_is_found_on_the_device(device: Device, tmp_path: Path) -> None:
    store, release = device.releases, make_release(tmp_path, 1)
    with pytest.raises(HashMismatch, match="is not on the device"):
        store.stage(release.manifest, b"", "default")
    store.transfer(release.files)
    digest = next(iter(release.files))
    stored = root(device) / "blobs" / "sha256" / digest
    stored.write_bytes(bytes(stored.stat().st_size))
    with pytest.raises(HashMismatch, match="has changed"):
        store.stage(release.manifest, b"", "default")
    assert store.installed().releases == ()
    release.on(device)
    model = root(device) / "releases" / release.id / "model.tflite"
    model.write_bytes(bytes(model.stat().st_size))
    with pytest.raises(HashMismatch, match="transfer and stage"):
        store.activate(release.id)
    assert store.installed().current == ""
    with pytest.raises(HashMismatch):  # which finds that the file has rotted, and removes it
        store.stage(release.manifest, b"", "default")
    release.on(device)
    store.activate(release.id)
    assert (root(device) / "current" / "model.tflite").read_bytes() == release.model.read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "../escape"},
        {"file": "manifest.json"},
        {"file": ".hidden"},
        {"file": "a/b"},
        {"file": ""},
        {"blob": "../../etc/passwd"},
        {"size_bytes": -1},
        {"size_bytes": True},
        {"golden": [{"inputs": 5}]},
    ],
)
def test_a_manifest_that_leads_elsewhere_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    release = make_release(tmp_path, 1, **changes)
    with connect(TargetSpec(name="dev", root=str(tmp_path / "root")), state=tmp_path) as device:
        with pytest.raises(ReleaseRefused):
            device.releases.stage(release.manifest, b"", "default")
        with pytest.raises(ReleaseRefused, match="no class 'other', but default"):
            device.releases.stage(make_release(tmp_path, 2).manifest, b"", "other")
        for nonsense in (b"", b"[]", b"{}", b"\xff", b'{"schema": 2}'):
            with pytest.raises(ReleaseRefused):
                device.releases.stage(nonsense, b"", "default")
        assert device.releases.installed().releases == ()


def test_old_releases_go_and_those_in_use_stay(device: Device, another: Connect, tmp_path: Path) -> None:
    store, made = device.releases, [make_release(tmp_path, number) for number in range(1, 6)]
    for release in made[:3]:
        proved(device, release)
    for release in made[3:]:
        release.on(device)
    store.activate(made[3].id)
    # current 4 (pending), confirmed and previous 3, and 1, 2, 5 beside them
    past = time.time() - 100_000
    stray = root(device) / "blobs" / "sha256" / ("0" * 64)
    stray.write_bytes(bytes(12_345))
    for path in stray.parent.iterdir():
        os.utime(path, (past, past))
    with another() as elsewhere:
        freed = elsewhere.releases.prune(3)
    assert store.installed().releases == tuple(sorted(made[number].id for number in (2, 3, 4)))
    assert freed > 12_345 and not stray.exists()
    kept = {path.name for path in stray.parent.iterdir()}
    assert kept >= {digest for number in (2, 3, 4) for digest in made[number].files}
    # What this session has asked for stays as long as it is open.
    assert kept >= {digest for number in (0, 1) for digest in made[number].files}
    device.close()
    with another() as elsewhere:
        assert elsewhere.releases.prune(0) == 30_000 * 3 + 500 * 3 + sum(
            len(made[4].manifest) + len('{"class": "default"}') for _ in range(1)
        )
        assert elsewhere.releases.installed().releases == tuple(sorted(made[number].id for number in (2, 3)))
        elsewhere.releases.revert(made[2].id)


@everywhere
def test_one_controller_at_a_time(device: Device, another: Connect, tmp_path: Path) -> None:
    store, release = device.releases, make_release(tmp_path, 1)
    store.lease("laptop", 60)
    store.lease("laptop", 120)
    assert store.installed().lease_owner == "laptop" and 100 < store.installed().lease_left_s <= 120
    release.on(device)
    with another() as intruder:
        theirs = intruder.releases
        theirs.transfer(release.files)
        steps: list[Callable[[], object]] = [
            lambda: theirs.lease("ci", 5),
            lambda: theirs.stage(release.manifest, b"", "default"),
            lambda: theirs.activate(release.id),
            lambda: theirs.revert(""),
            lambda: theirs.confirm(release.id),
            lambda: theirs.prune(0),
            lambda: theirs.trust(raw(Ed25519PrivateKey.generate())),
            lambda: theirs.hook(["/bin/true"], 5),
        ]
        for step in steps:
            with pytest.raises(Leased, match=r"laptop has it to itself, for 1\d\d s yet") as caught:
                step()
            assert caught.value.transient
        theirs.release_lease("ci")
        assert theirs.installed().lease_owner == "laptop"
        store.lease("laptop", 0.3)
        time.sleep(0.4)
        theirs.lease("ci", 60)
        with pytest.raises(Leased, match="ci has it"):
            store.activate(release.id)
        theirs.release_lease("ci")
    store.activate(release.id)


def test_a_lease_outlives_a_restart_but_not_for_ever(device: Device) -> None:
    device.releases.lease("laptop", 1e4)
    path = root(device) / "lease.json"
    path.write_text(path.read_text().replace(device.releases.installed().boot_id, "another boot"))
    left = device.releases.installed().lease_left_s
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert left == pytest.approx(max(0.0, 1e4 - uptime), abs=5)


def hook_file(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@and_phones
def test_the_owners_hook_runs_and_only_the_owners(device: Device, tmp_path: Path) -> None:
    store, release = device.releases, make_release(tmp_path, 1)
    proved(device, release)
    hook = hook_file(
        tmp_path / "owner", 'echo "$1 $EDGE_DEPLOY_RELEASE"; cat "$EDGE_DEPLOY_CURRENT"/staged.json; exit 3'
    )
    ran = store.hook([str(hook), "it's $HOME"], 20)
    assert ran.exit_code == 3
    assert ran.output == f"it's $HOME {release.id}\n" + '{"class": "default"}'
    start = time.monotonic()
    with pytest.raises(DeviceTimeout, match="outlived"):
        store.hook([str(hook_file(tmp_path / "owner", "sleep 60"))], 0.5)
    background = hook_file(tmp_path / "owner", "sleep 5 & echo started")
    assert store.hook([str(background)], 20).output == "started"
    assert time.monotonic() - start < 5
    inside = hook_file(root(device), "echo from the store")
    open_to_all = hook_file(tmp_path / "open", "true")
    open_to_all.chmod(0o777)
    not_executable = hook_file(tmp_path / "plain", "true")
    not_executable.chmod(0o644)
    for argv in ([str(inside)], [str(open_to_all)], [str(not_executable)], ["hook"], ["/does/not/exist"], []):
        with pytest.raises(HookRefused):
            store.hook(argv, 5)


@and_phones
def test_only_what_is_missing_travels(device: Device, tmp_path: Path) -> None:
    model = os.urandom(200_000)
    first, second = make_release(tmp_path, 1, model), make_release(tmp_path, 2, model)
    assert device.releases.transfer(first.files).files_sent == 3
    sent = device.releases.transfer(second.files)
    assert sent.files_sent == 2 and sent.bytes_on_wire == 500
    assert device.releases.transfer(second.files).files_sent == 0


@everywhere
def test_the_difference_to_a_file_that_is_there_travels(device: Device, tmp_path: Path) -> None:
    dice = random.Random(1)
    old = dice.randbytes(2_500_000)  # more than a window
    new = bytearray(old[:1_000_000] + b"moved by some bytes" + old[1_000_000:])
    for at in range(0, len(new), 5000):
        new[at] ^= dice.randrange(256)
    first, second = make_release(tmp_path, 1, old), make_release(tmp_path, 2, bytes(new))
    device.releases.transfer(first.files)
    sent = device.releases.transfer(second.files, first.files)
    assert sent.delta_files == 1 and sent.bytes_on_wire < 0.02 * len(new)
    digest = next(iter(second.files))
    assert (root(device) / "blobs" / "sha256" / digest).read_bytes() == new
    # A base that has rotted makes a wrong file, which is found, and sent whole.
    (root(device) / "blobs" / "sha256" / digest).unlink()
    (root(device) / "blobs" / "sha256" / next(iter(first.files))).write_bytes(bytes(len(old)))
    sent = device.releases.transfer(second.files, first.files)
    assert sent.delta_files == 0
    assert (root(device) / "blobs" / "sha256" / digest).read_bytes() == new


def test_what_compresses_is_compressed(device: Device, tmp_path: Path) -> None:
    dice = random.Random(2)
    model = b"".join(bytes([dice.randrange(16)]) for _ in range(400_000))
    release = make_release(tmp_path, 1, model)
    sent = device.releases.transfer(release.files)
    assert sent.bytes_on_wire < 0.7 * len(model)
    assert (root(device) / "blobs" / "sha256" / next(iter(release.files))).read_bytes() == model


@everywhere
@pytest.mark.parametrize("compressible", [False, True])
def test_a_transfer_that_was_cut_is_gone_on_with(another: Connect, tmp_path: Path, compressible: bool) -> None:
    dice = random.Random(3)
    model = dice.randbytes(8_000_000)  # more than the pipes and windows on the way hold
    if compressible:
        model = bytes(byte & 31 for byte in model)
    release = make_release(tmp_path, 1, model)
    device = another()
    with pytest.raises((ConnectionLost, KeyboardInterrupt)):
        device.releases.transfer(release.files, progress=_cut_at(0.8, device))
    device.close()
    assert list((root(device) / "blobs" / "sha256").iterdir()) == []
    _wait_for_lock(root(device))
    with another() as again:
        sent = again.releases.transfer(release.files)
        assert sent.resumed_bytes >= 0.2 * len(model), "SSH's own window holds 2 MB of what was sent"
        assert sent.bytes_on_wire <= 0.8 * len(model)
        again.releases.stage(release.manifest, b"", "default")
        again.releases.activate(release.id)


def _cut_at(share: float, device: Device) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done > share * total:
            device._transport.close()
            if device.spec.transport == "local":
                raise KeyboardInterrupt

    return progress


def _wait_for_lock(root: Path) -> None:
    """Until the agent whose link was cut has left."""
    end = time.monotonic() + 10
    while any((root / "parts").iterdir()):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_an_interrupted_file_with_other_contents_is_begun_anew(device: Device, tmp_path: Path) -> None:
    release = make_release(tmp_path, 1, os.urandom(1_000_000))
    digest = next(iter(release.files))
    kept = root(device) / "incoming"
    kept.mkdir()
    (kept / f"{digest}.part").write_bytes(bytes(600_000))
    sent = device.releases.transfer(release.files)
    assert sent.resumed_bytes == 0 and sent.bytes_on_wire == 1_000_500
    release.on(device)


def test_a_file_that_cannot_fit_is_not_begun(device: Device, tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(1 << 43)
    with pytest.raises(DiskFull, match="are free on the device"):
        device.releases.transfer({"0" * 64: huge})


def test_another_session_that_changes_something_is_waited_for(device: Device, tmp_path: Path) -> None:
    release = make_release(tmp_path, 1)
    release.on(device)
    with (root(device) / "releases.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        start = time.monotonic()
        timer = threading.Timer(0.5, fcntl.flock, (lock, fcntl.LOCK_UN))
        timer.start()
        device.releases.activate(release.id)
        timer.join()
    assert time.monotonic() - start > 0.5
    assert device.releases.installed().current == release.id


@pytest.mark.parametrize("spec", ["adb"], indirect=True)
@pytest.mark.parametrize("lacks", ["nothing", "mv -fT", "ln -s"])
def test_a_phone_whose_tools_are_few(
    device: Device, another: Connect, tmp_path: Path, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The device's own tools have all of it: the script that it is given asks for what they do not know.
    script = shell_releases._SWITCH.replace(lacks, f"{lacks.split()[0]} --no-such")
    monkeypatch.setattr(shell_releases, "_SWITCH", script)
    store, made = device.releases, [make_release(tmp_path, number) for number in range(1, 6)]
    for release in made[:3]:
        proved(device, release)
    found = store.installed()
    assert (found.current, found.previous, found.confirmed) == (made[2].id, made[1].id, made[2].id)
    assert "checked by the host only" in found.note
    assert (root(device) / "current").is_symlink() == (lacks != "ln -s")
    assert not list(root(device).rglob("*.new"))
    past = time.time() - 100_000
    for path in (root(device) / "blobs" / "sha256").iterdir():
        os.utime(path, (past, past))
    assert store.prune(2) > 30_000
    assert store.installed().releases == tuple(sorted(made[number].id for number in (1, 2)))
    kept = {path.name for path in (root(device) / "blobs" / "sha256").iterdir()}
    assert kept.isdisjoint(made[0].files) and kept >= {digest for one in made[1:3] for digest in one.files}
    store.lease("laptop", 60)
    made[3].on(device)
    with another() as intruder:
        theirs = intruder.releases
        theirs.transfer(made[4].files)
        for step in (
            lambda: theirs.lease("ci", 5),
            lambda: theirs.stage(made[4].manifest, b"", "default"),
            lambda: theirs.activate(made[3].id),
            lambda: theirs.revert(""),
            lambda: theirs.prune(0),
        ):
            with pytest.raises(Leased, match="laptop has it to itself, for"):
                step()
        store.lease("laptop", 0.2)
        time.sleep(0.3)
        theirs.lease("ci", 60)
        with pytest.raises(Leased, match="ci has it"):
            store.activate(made[3].id)
        theirs.release_lease("ci")
    store.activate(made[3].id)
    store.revert("")
    assert store.installed().current == ""

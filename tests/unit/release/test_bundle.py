"""A bundle: the same bytes every time, and no changed one is read."""

import io
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from released import MODEL, Parts, digest, manifest, parts

from pipeline import codec
from pipeline.release.bundle import Bundle, open_bundle, write_bundle
from pipeline.release.keys import PrivateKey, PublicKey, load_private_key, load_public_key, make_keys
from targets.errors import BundleRefused, BundleSignature, InputError, UsageError


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> PrivateKey:
    path = tmp_path_factory.mktemp("keys") / "release.pem"
    make_keys(path)
    return load_private_key(path, lambda _: "")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, made: Parts, key: PrivateKey) -> Path:
    return made.write(tmp_path_factory.mktemp("signed") / "net-1.release", manifest(), key)


def test_written_twice_it_is_the_same(tmp_path: Path, made: Parts, key: PrivateKey, signed: Path) -> None:
    for blob in made.blobs.values():
        os.utime(blob, (1, 1))
    again = made.write(tmp_path / "again.release", manifest(), key)
    assert again.read_bytes() == signed.read_bytes()
    with tarfile.open(signed) as tar:  # any tar reads it
        assert {(m.mtime, m.uid, m.gid, m.mode, m.isreg()) for m in tar} == {(0, 0, 0, 0o644, True)}
        assert tar.getnames()[:2] == ["manifest.json", "manifest.sig"]
    assert [path.name for path in tmp_path.iterdir()] == ["again.release"]


def test_opened(signed: Path, key: PrivateKey) -> None:
    opened = open_bundle(signed, [PublicKey(bytes(32)), key.public])
    assert opened.signed_by == key.public
    assert (opened.name, opened.sequence, opened.id) == ("net", 1, digest(opened.manifest))
    assert opened.record == manifest()
    blob = opened.blob(opened.classes["default"].blob)
    assert blob.read_bytes() == MODEL
    with pytest.raises(InputError):
        opened.blob("../../etc/passwd")
    del opened
    assert not blob.exists()


def _content(bundle: Bundle) -> tuple[object, ...]:
    return (bundle.manifest, bundle.signature, bundle.texts, *(bundle.blob(d).read_bytes() for d in bundle._places))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=some.data())
def test_a_changed_byte_is_refused(data: some.DataObject, tmp_path: Path, signed: Path, key: PrivateKey) -> None:
    whole = bytearray(signed.read_bytes())
    whole[data.draw(some.integers(0, len(whole) - 1))] ^= data.draw(some.integers(1, 255))
    (tmp_path / "changed").write_bytes(whole)
    with pytest.raises(BundleRefused):
        open_bundle(tmp_path / "changed", [key.public])


def test_each_byte_of_its_headers_counts(tmp_path: Path, signed: Path) -> None:
    """Without a key too, although only hashes and the one form of a header protect it then."""
    whole = signed.read_bytes()
    start = open_bundle(signed, None)._places[digest(MODEL)][0] - tarfile.BLOCKSIZE
    for place in range(start, start + tarfile.BLOCKSIZE):
        changed = bytearray(whole)
        changed[place] ^= 0x20
        (tmp_path / "changed").write_bytes(changed)
        with pytest.raises(BundleRefused):
            open_bundle(tmp_path / "changed", None)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=some.data())
def test_cut_or_longer_it_is_refused(data: some.DataObject, tmp_path: Path, signed: Path, key: PrivateKey) -> None:
    whole = signed.read_bytes()
    cut = data.draw(some.integers(0, len(whole) - 1))
    (tmp_path / "cut").write_bytes(data.draw(some.sampled_from([whole[:cut], whole + bytes(cut + 1)])))
    with pytest.raises(BundleRefused):
        open_bundle(tmp_path / "cut", [key.public])


def test_keys(tmp_path: Path, made: Parts, signed: Path, key: PrivateKey) -> None:
    unsigned = made.write(tmp_path / "unsigned.release", manifest())
    assert open_bundle(unsigned, None).signed_by is None
    for path, keys in ((unsigned, [key.public]), (signed, []), (signed, [PublicKey(bytes(32))])):
        with pytest.raises(BundleSignature, match=r"\.release: is (not signed|signed by no key)"):
            open_bundle(path, keys)


def _entry(kind: bytes, name: str, link: str = "") -> Callable[[tarfile.TarInfo], None]:
    def change(entry: tarfile.TarInfo) -> None:
        entry.type, entry.name, entry.linkname = kind, name, link
        entry.size = 0

    return change


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (_entry(tarfile.SYMTYPE, "MODEL_CARD.md", "/etc/passwd"), "symbolic link"),
        (_entry(tarfile.LNKTYPE, "MODEL_CARD.md", "/etc/passwd"), "link"),
        (_entry(tarfile.CHRTYPE, "MODEL_CARD.md"), "device"),
        (_entry(tarfile.BLKTYPE, "MODEL_CARD.md"), "device"),
        (_entry(tarfile.FIFOTYPE, "MODEL_CARD.md"), "pipe"),
        (_entry(tarfile.REGTYPE, "../../etc/cron.d/x"), "points out"),
        (_entry(tarfile.REGTYPE, "/etc/cron.d/x"), "points out"),
        (_entry(tarfile.REGTYPE, "manifest.json"), "stands where"),
        (_entry(tarfile.REGTYPE, "MODEL_CARD.md"), "another form"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_foreign_entries(
    tmp_path: Path, signed: Path, key: PrivateKey, entry: Callable[[tarfile.TarInfo], None], says: str
) -> None:
    """In the place of the model card, in a file of the right size, so that nothing else can be what is refused."""
    out = io.BytesIO()
    with tarfile.open(signed) as old, tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as new:
        for member in old:
            content = old.extractfile(member)
            if member.name == "MODEL_CARD.md":
                entry(member)
            new.addfile(member, content)
    size = signed.stat().st_size
    (tmp_path / "made.release").write_bytes(out.getvalue()[:size].ljust(size, b"\0"))
    with pytest.raises(BundleRefused, match=says):
        open_bundle(tmp_path / "made.release", [key.public])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 2}, "schema 2, this `deploy` knows up to 1"),
        ({"name": "../net"}, "none for a file"),
        ({"sequence": 0}, "no sequence"),
        ({"classes": {}}, "no model"),
        ({"files": {"../x": {"sha256": "a" * 64, "size_bytes": 1}}}, "no file of a release"),
        ({"files": {"MODEL_CARD.md": {"sha256": "../x", "size_bytes": 1}}}, "proper hash"),
        ({"files": {"MODEL_CARD.md": {"sha256": "a" * 64, "size_bytes": 1 << 50}}}, "proper hash or size"),
        ({"files": {"MODEL_CARD.md": {"sha256": "a" * 64, "size_bytes": 1 << 32}}}, "its manifest says"),
        ({"sequence": "7"}, "sequence"),
    ],
)
def test_a_manifest_that_lies(
    tmp_path: Path, signed: Path, key: PrivateKey, change: dict[str, object], says: str
) -> None:
    """Signed by the right key, for a key may sign what it should not."""
    from pipeline.release import archive

    plain = codec.decode(dict, open_bundle(signed, None).manifest)
    encoded = codec.canonical(plain | change)
    with (tmp_path / "lies.release").open("wb") as out:
        archive.write_archive(out, {"manifest.json": encoded, "manifest.sig": key.sign(encoded)})
    with pytest.raises(BundleRefused, match=rf"(?i){says}"):
        open_bundle(tmp_path / "lies.release", [key.public])


def test_a_manifest_too_large_to_be_one_is_not_read(tmp_path: Path) -> None:
    from pipeline.release import archive

    (tmp_path / "large.release").write_bytes(archive.header("manifest.json", 7 << 30) + b"{" * 512)
    with pytest.raises(BundleRefused, match="over the limit"):
        open_bundle(tmp_path / "large.release", None)


def test_another_file_than_was_judged_is_not_packed(tmp_path: Path, made: Parts) -> None:
    wrong = tmp_path / "wrong"
    shutil.copyfile(next(iter(made.blobs.values())), wrong)
    wrong.write_bytes(wrong.read_bytes()[:-1] + b"!")
    blobs = {**made.blobs, digest(MODEL): wrong}
    with pytest.raises(BundleRefused, match="not the file that was judged"):
        write_bundle(tmp_path / "out" / "net.release", codec.encode(manifest()), blobs, made.texts)
    assert not (tmp_path / "out").exists()


def test_a_bundle_changed_after_it_was_opened(tmp_path: Path, signed: Path, key: PrivateKey) -> None:
    path = tmp_path / "net.release"
    shutil.copyfile(signed, path)
    opened = open_bundle(path, [key.public])
    path.write_bytes(path.read_bytes().replace(b"model ", b"MODEL "))
    with pytest.raises(BundleRefused, match="has changed"):
        opened.blob(digest(MODEL))


def test_key_files(tmp_path: Path) -> None:
    private = tmp_path / "release.pem"
    public = make_keys(private, "open sesame")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert load_public_key(tmp_path / "release.pem.pub") == public
    assert load_private_key(private, lambda _: "open sesame").public == public
    with pytest.raises(UsageError, match="exists"):
        make_keys(private)
    with pytest.raises(InputError, match="passphrase is wrong"):
        load_private_key(private, lambda _: "sesame")
    with pytest.raises(InputError, match="needs its passphrase"):
        load_private_key(private, lambda _: "")
    with pytest.raises(InputError, match="is the private key"):
        load_public_key(private)
    private.chmod(0o640)
    with pytest.raises(InputError, match="others may read"):
        load_private_key(private, lambda _: "open sesame")


def test_openssl_agrees(tmp_path: Path, signed: Path, key: PrivateKey) -> None:
    """A key pair made elsewhere, and a signature checked elsewhere."""
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", "other.pem"], cwd=tmp_path, check=True, umask=0o077
    )
    load_private_key(tmp_path / "other.pem", lambda _: "")
    opened = open_bundle(signed, [key.public])
    for name, content in (("key", key.public.pem()), ("manifest", opened.manifest), ("sig", opened.signature)):
        (tmp_path / name).write_bytes(content)
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "key",
        "-rawin",
        "-in",
        "manifest",
        "-sigfile",
        "sig",
    ]
    assert "Success" in subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout


def test_same_blob_for_two_classes_is_there_once(tmp_path: Path, made: Parts) -> None:
    model = manifest().classes["default"]
    record = manifest(classes={"boards": model, "phones": replace(model, max_steps=1.0)})
    opened = open_bundle(made.write(tmp_path / "two.release", record), None)
    assert len(opened._places) == 3
    assert _content(opened)[0] == codec.encode(record)

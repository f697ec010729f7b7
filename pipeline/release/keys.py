"""Ed25519 keys for releases, in PEM: the private one PKCS #8, mode 0600, with a passphrase if you like.

Both are what `openssl genpkey -algorithm ed25519` makes and reads, so a key may come from, or live in, other tools.
What is signed is the manifest's bytes; the signature is the raw 64 bytes of RFC 8032.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pipeline.errors import EnvironmentFault, InputError, UsageError

SIGNATURE_BYTES = 64
PASSPHRASE_VARIABLE = "DEPLOY_KEY_PASSPHRASE"
_KEY_FILE_LIMIT_BYTES = 16 * 1024  # a PEM of Ed25519 has some 120 bytes, an encrypted one 300
_PRIVATE_HEADERS = (b"-----BEGIN PRIVATE KEY-----", b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
# Asks for the passphrase of a key file; "" when there is nobody to ask.
Ask = Callable[[Path], str]


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Who may sign. `raw` are the 32 bytes of RFC 8032, which a device is given as 64 hex digits."""

    raw: bytes

    @property
    def fingerprint(self) -> str:
        """Short, for people; a comparison takes `raw`."""
        return f"ed25519:{self.raw.hex()[:16]}"

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's, of `message`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def pem(self) -> bytes:
        return Ed25519PublicKey.from_public_bytes(self.raw).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


class PrivateKey:
    """A key that signs; shows nothing of itself when printed."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(
            key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        )

    def sign(self, message: bytes) -> bytes:
        """64 bytes; the same message always gives the same."""
        return self._key.sign(message)


def make_keys(private: Path, passphrase: str = "") -> PublicKey:
    """Write a new private key (mode 0600) and, as `<private>.pub`, its public one.

    Raises:
        UsageError: one of the files exists: a key that signed releases is never overwritten.
        EnvironmentFault: the files cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    public = PrivateKey(key).public
    encryption = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else None
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption or serialization.NoEncryption()
    )
    public_path = public_path_of(private)
    for path in (private, public_path):
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path} exists", hint="give another name: devices trust the key that is there")
    _write_new(private, pem, 0o600)
    _write_new(public_path, public.pem(), 0o644)
    return public


def public_path_of(private: Path) -> Path:
    return private.with_name(f"{private.name}.pub")


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask
            file.write(content)
            os.fsync(file.fileno())
    except OSError as error:
        raise EnvironmentFault(f"cannot write {path}: {error.strerror}", hint="choose another place") from None


def load_private_key(path: Path, ask: Ask) -> PrivateKey:
    """The private key in a PEM file; `ask` gives its passphrase where the environment does not.

    Raises:
        InputError: no such file, no Ed25519 key in it, others may read it, or the passphrase is wrong.
    """
    pem = _read(path)
    mode = path.stat().st_mode
    if mode & 0o077:
        raise InputError(
            f"{path}: others may read this private key (mode {mode & 0o777:04o})", hint=f"chmod 600 {path}"
        )
    if not pem.lstrip().startswith(_PRIVATE_HEADERS):
        raise InputError(f"{path}: is no private key in PKCS #8 PEM", hint=_FORM_HINT)
    passphrase = ""
    if b"ENCRYPTED" in pem[:64]:
        passphrase = os.environ.get(PASSPHRASE_VARIABLE) or ask(path)
        if not passphrase:
            raise InputError(f"{path}: needs its passphrase", hint=f"set {PASSPHRASE_VARIABLE}, or run in a terminal")
    try:
        key = serialization.load_pem_private_key(pem, passphrase.encode() or None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        wrong = "the passphrase is wrong, or the file is damaged" if passphrase else "is damaged"
        raise InputError(f"{path}: {wrong}", hint=_FORM_HINT) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path}: is a key, but not one of Ed25519", hint=_FORM_HINT)
    return PrivateKey(key)


def load_public_key(path: Path) -> PublicKey:
    """The public key in a PEM file. Raises InputError."""
    pem = _read(path)
    if pem.lstrip().startswith(_PRIVATE_HEADERS):
        raise InputError(f"{path}: is the private key", hint=f"keep it secret; give {public_path_of(path)}")
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{path}: is no public key in PEM", hint=_FORM_HINT) from None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{path}: is a key, but not one of Ed25519", hint=_FORM_HINT)
    return PublicKey(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))


def signer(message: bytes, signature: bytes, keys: Iterable[PublicKey]) -> PublicKey | None:
    """Which of the keys has signed, if any."""
    return next((key for key in keys if key.signed(message, signature)), None)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            pem = file.read(_KEY_FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint=_FORM_HINT) from None
    if len(pem) > _KEY_FILE_LIMIT_BYTES:
        raise InputError(f"{path}: is too large to be a key", hint=_FORM_HINT)
    return pem


_FORM_HINT = "`deploy release keygen FILE` makes a pair; FILE is the private key, FILE.pub the public one"

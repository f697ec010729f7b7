"""Whom the device believes: public keys that its owner provisioned, one file each.

ROOT/trust/<64 hex digits>   named by the Ed25519 key; holds the signature that vouched for it, nothing for the first
"""

from __future__ import annotations

from pathlib import Path

from .files import READABLE, write_file
from .manifest import DIGEST
from .wire import Refused

PREFIX = b"edge-deploy trust 1\0"  # as TRUST_PREFIX of targets.releases


class Trust:
    def __init__(self, root: Path) -> None:
        self.folder = root / "trust"

    def keys(self) -> list[str]:
        """The trusted keys, in hex. Whoever can write here owns the device anyway."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if DIGEST.fullmatch(path.name))

    def add(self, key: bytes, signature: bytes) -> None:
        from .ed25519 import valid_key

        known = self.keys()
        if key.hex() in known:
            return
        if not valid_key(key):
            raise Refused("signature", "%s is no Ed25519 public key" % key.hex())
        if known and not self.signed(signature, PREFIX + key):
            raise Refused("signature", "no key that is trusted here (%s) has vouched for it" % short(known))
        self.folder.mkdir(mode=0o755, exist_ok=True)
        write_file(self.folder / key.hex(), signature.hex().encode() + b"\n", READABLE)

    def check(self, signature: bytes, manifest: bytes) -> None:
        """Raise unless a trusted key has signed it; without any trusted key, nothing is checked."""
        known = self.keys()
        if not known or self.signed(signature, manifest):
            return
        what = "has signed the release" if signature else "can have signed the release: it is unsigned"
        raise Refused("signature", "no key that is trusted here (%s) %s" % (short(known), what))

    def signed(self, signature: bytes, message: bytes) -> bool:
        from .ed25519 import verify

        return any(verify(bytes.fromhex(key), signature, message) for key in self.keys())


def short(keys: list[str]) -> str:
    return ", ".join(key[:16] + "…" for key in keys)

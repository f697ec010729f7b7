"""Releases for tests: a manifest as `pipeline.release` writes it, with its files."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from targets.device import Device


@dataclass(frozen=True, kw_only=True)
class MadeRelease:
    """One release: its manifest, and the files of its one class by digest."""

    manifest: bytes
    files: dict[str, Path]
    model: Path

    @property
    def id(self) -> str:
        return hashlib.sha256(self.manifest).hexdigest()

    def signed_by(self, key: Ed25519PrivateKey) -> bytes:
        return key.sign(self.manifest)

    def on(self, device: Device, signature: bytes = b"") -> str:
        """Transfer and stage it; its id."""
        device.releases.transfer(self.files)
        device.releases.stage(self.manifest, signature, "default")
        return self.id


def make_release(folder: Path, sequence: int, model: bytes | None = None, **changes: object) -> MadeRelease:
    """A release of random bytes, unless a model is given; `changes` go into its one class."""
    folder = folder / f"release-{sequence}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("model.tflite", "inputs.npz", "expected.npz")]
    for path, content in zip(paths, (model or os.urandom(30_000), os.urandom(300), os.urandom(200)), strict=True):
        path.write_bytes(content)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    sizes = [path.stat().st_size for path in paths]
    golden = {"inputs": digests[1], "inputs_bytes": sizes[1], "expected": digests[2], "expected_bytes": sizes[2]}
    of_class = {
        "recipe": "litert-int8",
        "format": "tflite",
        "file": "model.tflite",
        "blob": digests[0],
        "size_bytes": sizes[0],
        "golden": [golden],
        **changes,
    }
    said = {"schema": 1, "name": "net", "sequence": sequence, "classes": {"default": of_class}}
    manifest = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    return MadeRelease(manifest=manifest, files=dict(zip(digests, paths, strict=True)), model=paths[0])

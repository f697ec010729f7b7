"""A release as a rollout sees it, read from its manifest: the journal keeps manifests, so old ones are known too."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

from pipeline.codec import DamagedRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """One sample and the host's answer to it, as digests of `.npz` files."""

    inputs: str
    inputs_bytes: int
    expected: str
    expected_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The model for one class of devices, and what a device must show of it."""

    format: Literal["tflite", "onnx"]
    blob: str
    size_bytes: int
    golden: tuple[Golden, ...]
    max_steps: float
    latency_p90_ms: float | None
    peak_memory_bytes: float | None
    runtime: Mapping[str, str]
    beside: Mapping[str, int] = field(default_factory=dict)  # digest -> bytes: files in its folder, with its weights

    @property
    def transfer_bytes(self) -> int:
        """What a device that has nothing must be sent."""
        return sum({self.blob: self.size_bytes, **self.beside}.values()) + self.golden_bytes

    @property
    def golden_bytes(self) -> int:
        """What of it are samples and answers."""
        sizes: dict[str, int] = {}
        for one in self.golden:
            sizes |= {one.inputs: one.inputs_bytes, one.expected: one.expected_bytes}
        return sum(size for digest, size in sizes.items() if digest != self.blob and digest not in self.beside)

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(
                [self.blob, *self.beside, *(part for one in self.golden for part in (one.inputs, one.expected))]
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What the manifest says, and the manifest itself."""

    id: str
    name: str
    sequence: int
    manifest: bytes
    signature: bytes
    classes: Mapping[str, Model]


def read_release(manifest: bytes, signature: bytes = b"") -> Release:
    """Raises DamagedRecord for a manifest that is none."""
    try:
        raw = json.loads(manifest)
        classes = {str(name): _model(entry) for name, entry in raw["classes"].items()}
        return Release(
            id=sha256(manifest).hexdigest(),
            name=str(raw["name"]),
            sequence=int(raw["sequence"]),
            manifest=manifest,
            signature=signature,
            classes=classes,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise DamagedRecord(
            f"the release's manifest makes no sense: {fault!r}", hint="make the release again"
        ) from fault


def _model(entry: Mapping[str, Any]) -> Model:
    budgets = entry.get("budgets") or {}
    return Model(
        format=entry["format"],
        blob=str(entry["blob"]),
        size_bytes=int(entry["size_bytes"]),
        golden=tuple(Golden(**golden) for golden in entry["golden"]),
        max_steps=float(entry["max_steps"]),
        latency_p90_ms=budgets.get("latency_p90_ms"),
        peak_memory_bytes=budgets.get("peak_memory_bytes"),
        runtime=dict(entry.get("runtime") or {}),
        beside={str(digest): int(size) for digest, size in (entry.get("beside") or {}).items()},
    )

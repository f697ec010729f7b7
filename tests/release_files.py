"""Small releases as files: a bundle with a model of a few hundred bytes for each class of devices."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from tiny_models import Bundle, digest_of, onnx_bundle, tflite_bundle

from pipeline import codec
from pipeline.release.bundle import release_id, write_bundle
from pipeline.release.keys import PrivateKey
from pipeline.release.records import (
    ClassModel,
    DeviceBudgets,
    Golden,
    Manifest,
    Observed,
    ReleasedData,
    ReleasedSource,
)

_NONE = "0" * 64


def write_release(
    path: Path,
    models: Mapping[str, Bundle],
    *,
    sequence: int = 1,
    name: str = "net",
    latency_p90_ms: float | None = None,
    peak_memory_bytes: int | None = None,
    key: PrivateKey | None = None,
) -> str:
    """Write a bundle, unsigned without a key; the release's id."""
    manifest = Manifest(
        name=name,
        sequence=sequence,
        classes={
            label: ClassModel(
                recipe="litert-int8",
                format=model.format,
                file=model.model.name,
                blob=digest_of(model.model),
                size_bytes=model.model.stat().st_size,
                golden=(
                    Golden(
                        inputs=digest_of(model.inputs),
                        inputs_bytes=model.inputs.stat().st_size,
                        expected=digest_of(model.expected),
                        expected_bytes=model.expected.stat().st_size,
                    ),
                ),
                max_steps=3.0,
                budgets=DeviceBudgets(latency_p90_ms=latency_p90_ms, peak_memory_bytes=peak_memory_bytes),
                runtime={"ai-edge-litert": "2.3.0"},
            )
            for label, model in models.items()
        },
        source=ReleasedSource(file="net.keras", sha256=_NONE, kind="keras"),
        calibration=ReleasedData(sha256=_NONE, preprocess=_NONE, count=1),
        test=ReleasedData(sha256=_NONE, preprocess=_NONE, count=1),
        tools={},
        settings={},
        budgets={},
        observed=Observed(devices={}, verdicts={}, reasons={}),
    )
    encoded = codec.encode(manifest)
    blobs = {digest_of(file): file for model in models.values() for file in model.files}
    write_bundle(path, encoded, blobs, {}, key.sign(encoded) if key else b"")
    return release_id(encoded)


def wrong_ones(folder: Path, good: Bundle) -> dict[str, Bundle]:
    """Models that a host could have taken for right."""
    found = {}
    for name in ("labels", "preprocessing", "truncated", "runtime"):
        made = tflite_bundle(folder / name)
        if name == "labels":  # two outputs in each other's place
            y = np.load(good.expected)["y"].copy()
            y[0, [0, 7]] = y[0, [7, 0]]
            np.savez(made.expected, y=y)
        elif name == "preprocessing":  # the host divided by 255, the device does not
            np.savez(made.inputs, x=np.load(good.inputs)["x"] * 255)
        elif name == "truncated":
            made.model.write_bytes(good.model.read_bytes()[:-200])
        else:  # of a format that it is not
            made = replace(onnx_bundle(folder / name), format="tflite")
        found[name] = made
    return found

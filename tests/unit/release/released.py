"""A small release with real files, to write, open and break."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.quality.statistics import summarize
from pipeline.records import Verdict
from pipeline.release.bundle import BOM, CARD, write_bundle
from pipeline.release.keys import PrivateKey
from pipeline.release.records import (
    ClassModel,
    DeviceBudgets,
    Golden,
    Manifest,
    Measured,
    Observed,
    ReleasedData,
    ReleasedFile,
    ReleasedSource,
)
from targets.records import Absent


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


MODEL, INPUTS, EXPECTED = b"model " * 100, b"inputs" * 20, b"expected"
TEXTS = {CARD: b"# card\n", BOM: b"{}"}


def manifest(**changes: Any) -> Manifest:
    golden = Golden(
        inputs=digest(INPUTS), inputs_bytes=len(INPUTS), expected=digest(EXPECTED), expected_bytes=len(EXPECTED)
    )
    model = ClassModel(
        recipe="onnx-int8",
        format="onnx",
        file="model.onnx",
        blob=digest(MODEL),
        size_bytes=len(MODEL),
        golden=(golden,),
        max_steps=3.0,
        budgets=DeviceBudgets(latency_p90_ms=20.0),
        runtime={"onnxruntime": "1.23.0"},
        targets=("pi",),
    )
    measured = Measured(
        load_ms=3.0,
        first_ms=2.0,
        warm_ms=summarize([1_000_000, 1_100_000, 1_200_000]),
        peak_memory_bytes=30_000_000,
        energy_j=Absent(reason="no meter on pi"),
        answer_steps=0.5,
        runtime="onnxruntime 1.23.0",
        arch="aarch64",
        cpu="Cortex-A76",
        os="Debian 12",
        threads=1,
    )
    whole = Manifest(
        name="net",
        sequence=1,
        content="c" * 64,
        classes={"default": model},
        source=ReleasedSource(file="net.onnx", sha256="a" * 64, kind="onnx"),
        calibration=ReleasedData(sha256="b" * 64, preprocess="d" * 64, count=4),
        test=ReleasedData(sha256="e" * 64, preprocess="d" * 64, count=3),
        tools={"onnxruntime": "1.23.0"},
        settings={"choose": "latency"},
        budgets={"size": "2 MB"},
        observed=Observed(
            devices={"default": {"pi": measured}},
            verdicts={"pi": {"onnx-int8": Verdict(verdict="pass", reason="within every budget")}},
            reasons={"default": "onnx-int8 is the fastest of those that pass"},
        ),
        files={name: ReleasedFile(sha256=digest(text), size_bytes=len(text)) for name, text in TEXTS.items()},
    )
    return replace(whole, **changes)


@dataclass(frozen=True)
class Parts:
    """What a bundle is written from."""

    blobs: Mapping[str, Path]
    texts: Mapping[str, bytes]

    def write(self, path: Path, record: Manifest, key: PrivateKey | None = None) -> Path:
        encoded = codec.encode(record)
        write_bundle(path, encoded, self.blobs, self.texts, key.sign(encoded) if key else b"")
        return path


def parts(folder: Path) -> Parts:
    blobs = {}
    for content in (MODEL, INPUTS, EXPECTED):
        path = folder / digest(content)
        path.write_bytes(content)
        blobs[digest(content)] = path
    return Parts(blobs, TEXTS)

"""The manifest of a release: frozen data that the host signs, the device checks, and a diff compares.

Its canonical JSON is what is signed, and the SHA-256 of that is the release's id. Digests are SHA-256 in hex.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.records import Format, MetricValue, Summary, Verdict
from targets.records import Absent, TensorSpec

SCHEMA = 1  # of the manifest; grows when a reader of the old one would misunderstand the new one


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """One real sample in the model's own input types, and the host's outputs for it; both `.npz` blobs."""

    inputs: str
    inputs_bytes: int
    expected: str
    expected_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBudgets:
    """What a device can check for itself after activation; None is not judged."""

    latency_p90_ms: float | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedQuality:
    """How close the model's answers are to the float source's, and how good they are at the task."""

    fidelity: Mapping[str, float]
    metrics: Mapping[str, MetricValue]
    samples: int
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassModel:
    """The one model for a class of devices: what rollout and store need first, then where it comes from."""

    recipe: str
    format: Format
    file: str  # its name on the device
    blob: str
    size_bytes: int  # of that file
    golden: tuple[Golden, ...]
    max_steps: float  # how far a device's answer may be from the golden one, in quantization steps
    budgets: DeviceBudgets
    runtime: Mapping[str, str]  # distribution -> version that answered; the oldest, where devices differ
    targets: tuple[str, ...] = ()  # on which it passed
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    ops_total: int = 0
    ops_quantized: Mapping[str, int] = field(default_factory=dict)
    ops_left_float: Mapping[str, str] = field(default_factory=dict)  # op type -> how many, and why
    parameters: Mapping[str, str] = field(default_factory=dict)  # of the recipe: range method, mix of precisions …
    quality: ReleasedQuality | None = None
    tools: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    beside: Mapping[str, int] = field(default_factory=dict)  # digest -> bytes: files in its folder, with its weights

    @property
    def total_bytes(self) -> int:
        """Of the model and what it needs beside it."""
        return self.size_bytes + sum(self.beside.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedSource:
    """The trained model."""

    file: str
    sha256: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedData:
    """A data set: enough to say later whether it is the same one."""

    sha256: str  # over the preprocessed samples, order included
    preprocess: str  # digest of the declared preprocessing
    count: int
    seed: int | None = None  # of the choice of samples; None: all were taken
    license: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one device showed of the model it is to get. The only part of a manifest that no rerun gives again."""

    load_ms: float
    first_ms: float
    warm_ms: Summary
    peak_memory_bytes: int | Absent
    energy_j: float | Absent  # per inference
    answer_steps: float
    runtime: str
    arch: str
    cpu: str
    os: str
    threads: int
    emulated: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the devices showed and what was judged of it, when this release was made."""

    devices: Mapping[str, Mapping[str, Measured]]  # class -> target -> numbers of the class's model
    verdicts: Mapping[str, Mapping[str, Verdict]]  # target -> recipe -> verdict, of all that were judged
    reasons: Mapping[str, str]  # class -> why this recipe, or why none


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedFile:
    """A file of the bundle that is no blob."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All of a release. Two manifests with the same `content` differ in their sequence and in what was observed."""

    schema: int = SCHEMA
    name: str
    sequence: int  # grows by one per release of this name
    content: str = ""  # digest of all but `sequence`, `observed` and `files`: the same wherever it is made again
    classes: Mapping[str, ClassModel]
    source: ReleasedSource
    calibration: ReleasedData
    test: ReleasedData
    tools: Mapping[str, str]  # distribution -> version, our own among them
    settings: Mapping[str, Any]  # deploy.yaml as far as it decides: no device, no path of a key
    budgets: Mapping[str, str]  # as written in deploy.yaml
    license: str = ""
    summary: str = ""
    observed: Observed
    files: Mapping[str, ReleasedFile] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """What a run released: a new release, or the same as the last one, which then stays as it is."""

    id: str
    name: str
    sequence: int
    file: str  # of the bundle, in the output folder
    new: bool
    signed_by: str  # fingerprint; "" when not signed
    classes: Mapping[str, str]  # class -> recipe
    without: Mapping[str, str]  # class that gets no model -> why
    kind: str = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNumbers:
    """One recipe on one target in one run."""

    verdict: str
    latency_p50_ms: float | None = None
    latency_p90_ms: float | None = None
    first_ms: float | None = None
    load_ms: float | None = None
    peak_memory_bytes: int | None = None
    energy_j: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecipe:
    """One recipe in one run, whatever the target."""

    size_bytes: int
    fidelity: Mapping[str, float]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEntry:
    """One `deploy run` in the history."""

    date: str  # ISO 8601, UTC
    status: str
    reason: str
    chosen: Mapping[str, str | None]  # class -> recipe
    classes: Mapping[str, str]  # target -> class
    release: str  # id; "" when none came of it
    sequence: int  # of that release; 0 when none
    new: bool  # the release was made by this run
    targets: Mapping[str, Mapping[str, RunNumbers]]  # target -> recipe
    recipes: Mapping[str, RunRecipe]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseEntry:
    """One release in the history; `manifest` and `signature` make its bundle again, with the store's blobs."""

    date: str  # ISO 8601, UTC
    id: str
    manifest: str  # the very text that is hashed and signed
    signature: str  # hex, "" when not signed
    signed_by: str  # fingerprint
    texts: Mapping[str, str]

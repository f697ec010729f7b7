"""What flows between the stages: frozen data, no I/O, no behaviour.

    Source -export-> Exported -calibrate-> Ranges -quantize-> Artifact -validate-> Quality -package-> Release
    Ranges -sensitivity-> Sensitivity -search-> Searched -quantize-> Artifact, where a recipe asks for a search
    Release -push-> Pushed -measure-> Measurement -gate-> Decision -release-> Released -report-> Report

A step that could not produce its record produces a `Refusal` that says why. Digests are SHA-256 in hex and name
blobs of the store. A quantity's unit is in its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.derived import Energy
from pipeline.fit.records import Fit
from targets.records import Absent, Answer, Facts, Failed, Measurement, TensorSpec

Format = Literal["tflite", "onnx", "pt"]  # pt: TorchScript
Objective = Literal["latency", "size", "memory", "energy", "quality"]
VerdictKind = Literal["pass", "fail", "refused", "inconclusive"]
# What a verdict rests on, for programs; `pipeline.stages.outcome` has the first two.
VerdictCode = Literal[
    "not-quantized",
    "slower-than-float",
    "wrong",
    "lost-quality",
    "over-budget",
    "differs-on-device",
    "does-not-fit",
    "not-measured",
]
# What an op computes in: float16 is half-precision weights, int16x8 and int8x4 are activations x weights in bits.
Precision = Literal["float32", "float16", "int16x8", "int8", "int8x4"]
# Ways to lose less at the same precision, see `pipeline.recipes`.
Repair = Literal["bias", "cle", "octav", "mse", "gptq"]
Status = Literal["pass", "fail", "device-error", "inconclusive"]
# Distances to the float model that are shares of 1, so that `max_drop` can limit them without any task metric.
JUDGED_FIDELITY = ("cosine", "top1_agreement")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A step that has no result, and why. `last_output` holds what a dead converter said last."""

    stage: str
    reason: str
    hint: str = ""
    last_output: tuple[str, ...] = ()
    transient: bool = False  # may well succeed next time (killed, timed out): not remembered
    kind: Literal["refusal"] = "refusal"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary:
    """What a data set was: enough to say later whether it is the same one."""

    path: str
    digest: str  # over the preprocessed samples, order included
    preprocess: str  # digest of the declared preprocessing
    count: int
    sample_ids: tuple[str, ...]
    findings: tuple[str, ...] = ()  # such as constant or duplicate samples, each with the sample's name
    kind: Literal["data"] = "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The source model with its shapes fixed, both data sets checked against it, and its own answers on them.

    A fine-tuned model is such a source too, so that what follows needs no case of its own. `blob` is a tar of a
    SavedModel, an ONNX file, or a torch.export program. `reference` is an outputs file (`pipeline.quality.outputs`):
    group "test" for every test sample, group "calibrate" for the first calibration sample; of a fine-tuned model only
    that.
    """

    source_kind: str
    blob: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    calibration: DataSummary
    test: DataSummary
    reference: str
    tools: Mapping[str, str]
    learned: str = ""  # of a fine-tuned model: blob of the ranges that training learned
    notes: tuple[str, ...] = ()  # what every candidate's user should know, such as what training did
    beside: Mapping[str, int] = field(default_factory=dict)  # digest -> bytes: in its folder, with its weights
    kind: Literal["prepared"] = "prepared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The float model in one runtime's format, proven against the source framework on one real sample."""

    format: Format
    blob: str
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_abs_error: float  # against the source framework, on the first calibration sample
    sqnr_db: float
    notes: tuple[str, ...]
    tools: Mapping[str, str]
    beside: Mapping[str, int] = field(default_factory=dict)  # digest -> bytes: in its folder, with its weights
    kind: Literal["exported"] = "exported"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How far the ranges from some of the samples are from those of all: the shift that 95 % of the tensors stay under,
    as a share of a tensor's range."""

    samples: int
    shift: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """The range of each float tensor of a float artifact, from what was observed over the calibration samples."""

    format: Format
    model: str  # the float model that was observed
    blob: str  # JSON: {tensor: [low, high]}, for 8 bits
    extremes: str  # JSON: {tensor: [min, max]}, for 16 bits, where cutting gains nothing
    sketch: str  # the observations (`pipeline.calibration.sketch_file`)
    sketch_digest: str  # of their canonical content: the same on every machine
    method: str
    percentile: float
    chosen_methods: Mapping[str, int]  # method -> tensors; several with the method `best`
    tensors: int
    dead_tensors: tuple[str, ...]  # zero for every sample
    constant_tensors: tuple[str, ...]  # the same value for every sample, not zero
    unstable_tensors: Mapping[str, float]  # tensor -> by how much of its range two halves of the samples differ
    coverage: tuple[Coverage, ...]
    samples: int  # those of merged sketches included
    passes: int  # over the data: one for each group of tensors that the memory budget allows
    predicted_peak_bytes: int  # what calibration was going to add to the process
    budget_bytes: int
    findings: tuple[str, ...]
    tools: Mapping[str, str]
    notes: tuple[str, ...] = ()
    kind: Literal["ranges"] = "ranges"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockError:
    """What one block of ops does to the answers when it alone is int8 and all else is float."""

    block: str  # name of its op with weights
    ops: tuple[str, ...]
    types: tuple[str, ...]
    place: int  # in the order the blocks run
    compute_share: float  # of the model's multiply-accumulates
    op_sqnr_db: float  # at the block's own output
    output_sqnr_db: float  # at the model's outputs, the worst of them
    loss_share: float  # of the error power at the outputs that all blocks make
    cause: Literal["activations", "weights", ""] = ""  # what is too coarse; "": not looked at, it loses next to nothing
    fix: Precision | None = None  # the cheapest that makes it harmless
    fix_sqnr_db: float | None = None  # at the model's outputs, with that
    refused: str = ""  # why it cannot be int8 at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Blocks in the order of what they lose, the worst first."""

    format: Format
    blocks: tuple[BlockError, ...]
    float_ops: tuple[str, ...]  # ops that have no integer form
    int8_sqnr_db: float  # at the model's outputs, with all of them int8
    samples: int
    tools: Mapping[str, str]
    kind: Literal["sensitivity"] = "sensitivity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Loss of one metric against the float source over the samples that were looked at.

    `low` and `high` are its 95 % interval; both are the loss itself where the metric has no value for one sample.
    """

    metric: str
    value: float
    low: float
    high: float
    allowed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One mix of precisions, really made and really run.

    meets: the whole interval of every loss is within what is allowed. unsure: the loss is, its interval is not.
    """

    name: str
    blocks: Mapping[str, int]  # precision -> number of blocks
    repairs: tuple[Repair, ...]
    verdict: Literal["meets", "unsure", "misses", "refused"]
    drops: tuple[Drop, ...]
    sqnr_db: float
    samples: int  # fewer than all when it was rejected early
    size_bytes: int
    int8_share: float  # of the compute
    latency_ms: float | None = None  # median; None: not measured, because it was out of the question
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What a search found: the mix it takes, op by op, and everything it tried."""

    recipe: str
    precisions: Mapping[str, Precision]  # op -> what it gets
    repairs: tuple[Repair, ...]
    chosen: str  # name of the trial
    trials: tuple[Trial, ...]
    pareto: tuple[str, ...]  # names of trials that no other beats in both cost and loss
    cost: str  # what was made small, such as "latency on pi"
    findings: tuple[str, ...]
    tools: Mapping[str, str]
    kind: Literal["searched"] = "searched"


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatOps:
    """Ops of one type that a recipe left in float, and why."""

    op: str
    count: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One quantized (or float) model file, loaded and run once on the host."""

    recipe: str
    format: Format
    blob: str
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ops_total: int
    ops_quantized: Mapping[str, int]  # op type -> count computing on quantized data
    ops_left_float: tuple[FloatOps, ...]
    tools: Mapping[str, str]
    convert_s: float
    notes: tuple[str, ...] = ()
    float_bytes: int = 0  # of the float32 model it was made from; 0: not known
    beside: Mapping[str, int] = field(default_factory=dict)  # digest -> bytes: in its folder, with its weights
    kind: Literal["artifact"] = "artifact"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValue:
    """A task metric of the candidate and, on the same samples, of the float source."""

    value: float
    reference: float
    better: Literal["higher", "lower"]
    unit: str = ""

    @property
    def drop(self) -> float:
        """How much worse than the float source, in the metric's unit; negative when better."""
        return self.reference - self.value if self.better == "higher" else self.value - self.reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One test image as PNG blobs: what went in, the float answer, the candidate's, and their difference (×gain)."""

    sample: str
    input: str
    reference: str
    candidate: str
    error_map: str
    error_gain: float
    truth: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How close an artifact's answers are to the float source's, and how good they are at the task."""

    recipe: str
    fidelity: Mapping[str, float]  # sqnr_db, cosine, max_error_steps, top1_agreement (classifiers), finite_share
    metrics: Mapping[str, MetricValue]
    samples: int
    golden_inputs: str  # npz blob, in the artifact's own input dtypes
    golden_outputs: str
    pictures: tuple[Picture, ...] = ()
    findings: tuple[str, ...] = ()
    kind: Literal["quality"] = "quality"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The candidates of one run as files to be pushed, described by a manifest blob."""

    id: str
    manifest: str
    candidates: Mapping[str, str]  # recipe -> model blob
    kind: Literal["release"] = "release"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What one device holds after a push."""

    target: str
    release: str
    facts: Facts
    sent_bytes: int
    present_bytes: int  # was there already
    fits: Mapping[str, Fit] = field(default_factory=dict)  # by recipe; one that does not fit was not sent
    kind: Literal["pushed"] = "pushed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One device's measurements, or why there are none, by recipe."""

    target: str
    results: Mapping[str, Measurement | Failed]
    rounds: tuple[Mapping[str, Measurement], ...] = ()  # more processes, where one would have decided: in turns
    kind: Literal["measured"] = "measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a candidate may ship to one target, and why (not). `suggestion`: what to try next."""

    verdict: VerdictKind
    reason: str
    codes: tuple[VerdictCode, ...] = ()
    suggestion: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The outcome of a run: verdicts by target and recipe, the choice per target and over all of them."""

    verdicts: Mapping[str, Mapping[str, Verdict]]
    chosen_by_target: Mapping[str, str | None]
    chosen: str | None
    status: Status
    reason: str
    chosen_by_class: Mapping[str, str | None] = field(default_factory=dict)  # for the release
    reason_by_class: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Order statistics of warm latency, from raw samples; the interval is a bootstrap interval of the median."""

    median: float
    p90: float
    ci95: tuple[float, float]
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetResult:
    """One candidate on one device, as reported. `verdict` and `reason` are the gate's, for this device."""

    load_ms: float | Absent
    first_ms: float | Absent
    warm_ms: Summary | Absent
    warm_samples_ms: tuple[float, ...]
    fps: float | Absent
    peak_rss_bytes: int | Absent
    energy: float | Absent  # joules per inference, gross
    runtime: str
    answer: Answer | Absent
    verdict: VerdictKind
    reason: str
    conditions: Mapping[str, str] = field(default_factory=dict)
    energy_details: Energy | None = None
    fit: str = ""  # whether the file fits the device, in words; empty: not judged
    path: str = ""  # of the file that was lowered for this device, relative to the report's folder
    sha256: str = ""  # of that file
    codes: tuple[VerdictCode, ...] = ()
    suggestion: str = ""
    latency_ratio: float | None = None  # against float32 of the same format here; None: one of both is not measured


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateReport:
    """One recipe, all the way. For a refused recipe everything measured is empty and `reason` says why."""

    recipe: str
    format: Format
    path: str  # relative to the report's folder; empty when there is no file
    sha256: str
    size_bytes: int
    ops_total: int
    ops_quantized: Mapping[str, int]
    ops_left_float: tuple[FloatOps, ...]
    fidelity: Mapping[str, float]
    metrics: Mapping[str, MetricValue]
    targets: Mapping[str, TargetResult]
    verdict: VerdictKind
    reason: str
    tools: Mapping[str, str]
    inputs: tuple[TensorSpec, ...] = ()  # of the file itself: data types, and scale and zero point where quantized
    outputs: tuple[TensorSpec, ...] = ()
    findings: tuple[str, ...] = ()
    last_output: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()  # here the blobs are paths relative to the report's folder
    codes: tuple[VerdictCode, ...] = ()  # on any target
    suggestion: str = ""
    size_ratio: float | None = None  # against the float32 model it was made from
    promised_size_ratio: float | None = None  # what the toolkits' guides say of this kind of quantization
    promised_latency_ratio: float | None = None
    beside: Mapping[str, int] = field(default_factory=dict)  # digest -> bytes: files in its folder, with its weights


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchReport:
    """How an `auto` recipe came to its mix; `sensitivity` is cut to the worst blocks."""

    recipe: str
    sensitivity: tuple[BlockError, ...]
    blocks_total: int
    int8_sqnr_db: float
    chosen: str
    trials: tuple[Trial, ...]
    pareto: tuple[str, ...]
    cost: str
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationReport:
    """How the ranges of one format came about. With the data's summary it says all that is needed to repeat it."""

    path: str  # of the sketches, relative to the report's folder
    sketch_digest: str
    model: str  # SHA-256 of the float model that was observed
    method: str
    percentile: float
    chosen_methods: Mapping[str, int]
    seed: int
    samples: int
    tensors: int
    passes: int
    predicted_peak_bytes: int
    budget_bytes: int
    coverage: tuple[Coverage, ...]
    unstable_tensors: Mapping[str, float]
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    path: str
    sha256: str
    kind: str  # keras, saved_model, onnx, pytorch
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`report.json`, the stable interface. Version changes only when a field changes meaning or goes."""

    version: Literal[1] = 1
    name: str
    created: str  # ISO 8601, UTC
    status: Status
    chosen: str | None  # the recipe chosen over all targets
    chosen_by_target: Mapping[str, str | None]
    reason: str  # why that one was chosen, or why none was
    objective: Objective
    baseline: str | None  # the float32 recipe that the percentages are against
    source: SourceReport
    calibration: DataSummary
    test: DataSummary
    budgets: Mapping[str, str]  # as written in deploy.yaml
    candidates: tuple[CandidateReport, ...]
    facts: Mapping[str, Facts | Failed]
    tools: Mapping[str, str]
    release: str  # id of the release that came of it; "": none
    searches: tuple[SearchReport, ...] = ()
    calibrations: Mapping[str, CalibrationReport] = field(default_factory=dict)  # by format
    bundle: str = ""  # the release's file, relative to the report's folder
    released: str = ""  # what became of the choice, in a sentence

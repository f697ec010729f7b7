"""What is known about a device and what was observed on it: frozen data, no I/O, no behaviour.

Every quantity carries its unit in its name. A quantity that could not be had is `Absent` with the reason,
never zero and never a guess.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# Read by pydantic where deploy.yaml or a stored record is decoded; a plain dict, so nothing heavy is imported here.
_STRICT = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A quantity that could not be had here."""

    reason: str
    kind: Literal["absent"] = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """An expected failure on one device or candidate; the others go on."""

    code: str
    message: str
    hint: str = ""
    kind: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """One device of deploy.yaml's `targets:`."""

    name: str
    transport: str = "local"
    host: str = ""  # host name, address, or a Host alias of ~/.ssh/config; ssh only
    user: str = ""  # empty: ~/.ssh/config, else the current user
    port: int = 0  # 0: ~/.ssh/config, else 22
    identity_file: str = ""
    known_hosts: str = ""  # empty: ~/.ssh/known_hosts
    ssh_config: str = ""  # empty: ~/.ssh/config
    python: str = ""  # interpreter on the device; empty: python3 (this interpreter for local)
    root: str = ""  # folder on the device that holds our files; empty: ~/.edge-deploy (local: inside the state folder)
    connect_timeout_s: float = 10.0
    step_timeout_s: float = 600.0
    threads: int = 1
    serial: str = ""  # adb only: as `adb devices` shows it; empty with a host: HOST:PORT
    runner: str = ""  # adb only: of `targets.runners`; empty: the first of them
    activate_hook: tuple[str, ...] = ()  # a program of its owner's there, run after a switch, such as a restart
    health: tuple[str, ...] = ()  # one that says by its exit code whether all is well after that
    libraries: str = ""  # adb only: what the runner takes its runtimes from, such as the app's own .aar or .apk
    fixed_performance: bool = False  # adb only: Android's mode of that name while a benchmark runs
    app: str = ""  # adb only: the package of a debuggable app whose folder gets the current release
    device_class: str = "default"  # which of a release's models is for it
    groups: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)  # the user's own words: site, soc, ring …
    meter: str = ""  # of `targets.meters`, csv:PATH, replay:PATH or none; empty: the best that the device has


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSource:
    """One power sensor of a device, and what has to be read there to know its power."""

    meter: str  # of `targets.meters`
    place: str  # what tells it from others of its kind, such as a hwmon folder
    scope: str  # what its reading includes
    interval_s: float  # between two new readings
    averaging_s: float = 0.0  # what one reading is the mean of; 0: a moment, or an accumulating register
    resolution_w: float = 0.0  # the smallest step; of an accumulating register, 0
    error_share: float = 0.0  # of a reading; the comment beside it says after whom
    kind: Literal["measured", "modelled"] = "measured"
    files: tuple[str, ...] = ()  # to read for every sample
    command: str = ""  # or the name of a command that the device's side knows
    refused: str = ""  # why its readings tell nothing now, such as a battery that is being charged


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a probe found. `runtimes` maps distribution name to version, such as {"ai-edge-litert": "2.3.0"}."""

    target: str
    arch: str
    cpu_model: str
    cpu_features: tuple[str, ...]  # the ones that choose kernels: neon asimddp i8mm fphp avx2 avx512_vnni …
    cpu_count: int
    os: str
    kernel: str
    libc: str
    python: str
    runtimes: Mapping[str, str]
    governor: str | Absent
    free_disk_bytes: int
    total_memory_bytes: int | Absent
    available_memory_bytes: int | Absent
    temperature_c: float | Absent
    meters: tuple[str, ...]
    emulated: str = ""  # non-empty: why latencies here are not those of the hardware it looks like
    conditions: Mapping[str, str] = field(default_factory=dict)  # of a phone: battery, thermal status, clusters …
    power_sources: tuple[PowerSource, ...] = ()  # what `meters` names, the best first
    executable: str = ""  # of that Python, on the device
    numpy: str = ""  # version; empty where there is none, or no Python
    page_bytes: int = 0  # of memory; 0: not told
    imports: Mapping[str, str] = field(default_factory=dict)  # runtimes that were tried, to what went wrong: "" nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One model input or output. A dimension of -1 is free."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float = 0.0  # affine quantization of the tensor itself; 0 when it is float
    zero_point: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyPlan:
    """Windows of inference under a power meter: idle, busy, idle, busy … idle, in the benchmark's own process."""

    windows: int
    window_s: float
    idle_s: float
    settle_s: float = 0.0  # of the same load before and after each; set for the meter


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """One benchmark of one pushed model, in a process of its own.

    `blob`, `inputs` and `expected` are SHA-256 digests of files already on the device: the model, one sample as
    `.npz` (arrays named as the model's inputs), and the host's outputs for that sample as `.npz`. So are those in
    `beside`, which hold weights of the model and are asked for by it under these names.
    """

    blob: str
    format: Literal["tflite", "onnx", "pt"]
    inputs: str
    expected: str
    threads: int
    warm_max_s: float
    warm_min_samples: int
    warm_max_samples: int
    pause_s: float = 0.0  # before every warm run: what an application that is used now and then sees
    cpus: tuple[int, ...] = ()  # the cores it may run on; empty: all
    governor: str = ""  # to set while it runs, and to set back; empty: left alone
    energy: EnergyPlan | None = None  # None: no energy is asked for, and no time is spent on it
    beside: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, str]:
        """Digests by role; a file beside the model has its digest for a role."""
        return {
            "blob": self.blob,
            "inputs": self.inputs,
            "expected": self.expected,
            **{digest: digest for digest in self.beside},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of time in the benchmark's process, by the trace's clock."""

    kind: Literal["idle", "busy"]
    start_ns: int
    end_ns: int
    runs: int = 0  # whole inferences in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """An accumulating register, one reading for each time stamp of its trace."""

    name: str
    range_j: float  # where it begins at 0 again; 0: it never does
    readings_j: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerTrace:
    """Power over time at a stated point of the device. Joules are derived from it, never stored.

    A sensor fills `power_w`, a set of accumulating registers `counters`; each has one entry for each time stamp.
    """

    meter: str
    scope: str
    time_ns: tuple[int, ...]  # when the sensor was read, monotonic clock of the device
    power_w: tuple[float, ...] = ()
    counters: tuple[Counter, ...] = ()
    windows: tuple[Window, ...] = ()
    kind: Literal["measured", "modelled", "replayed"] = "measured"
    interval_s: float = 0.0  # these four as in `PowerSource`; an interval of 0 is not known
    averaging_s: float = 0.0
    resolution_w: float = 0.0
    error_share: float = 0.0
    notes: tuple[str, ...] = ()  # how it was obtained, where that is not obvious


@dataclass(frozen=True, slots=True, kw_only=True)
class OpTime:
    """One op of a model as it really runs, after the runtime's own rewriting."""

    name: str
    op: str
    dtypes: tuple[str, ...]  # of its outputs
    where: str  # execution provider or delegate, "built-in" for the runtime's own kernels; empty: not told
    us: float | Absent  # mean of the middle half of the runs after the first


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Where the time of an inference goes on one device."""

    target: str
    blob: str
    runtime: str
    runtime_version: str
    delegate: str
    runs: int
    ops: tuple[OpTime, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The device's outputs for the golden sample against the host's, same file, same input.

    Distance is in quantization steps of the output tensor (for float outputs: in 1/255 of the host output's range),
    because fused kernels may differ by a step legitimately (onnxruntime#32132).
    """

    max_steps: float
    finite: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Everything one benchmark process observed; raw samples kept, nothing judged."""

    target: str
    blob: str
    runtime: str  # distribution name
    runtime_version: str
    delegate: str  # "XNNPACK", "" when none was reported
    threads: int
    load_ns: int
    first_ns: int
    warmup_ns: tuple[int, ...]
    warm_ns: tuple[int, ...]
    load_peak_rss_bytes: int | Absent
    peak_rss_bytes: int | Absent
    energy: PowerTrace | Absent  # the evidence; joules are `pipeline.quality.energy`'s
    answer: Answer
    conditions: Mapping[str, str] = field(default_factory=dict)  # governor, temperature, load average …, as observed

"""deploy.yaml: everything it may say. The JSON Schema for editors is generated from these models.

Paths are relative to the file. Reading it is in `config_file.py`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from pipeline.calibration.methods import Method
from pipeline.errors import UsageError
from pipeline.quality.metrics import MetricSpec
from pipeline.quantities import parse_quantity
from pipeline.records import Objective, Precision
from pipeline.rollout.settings import RolloutConfig
from pipeline.samples import DataSection, DataSpec
from pipeline.samples.spec import Truth
from pipeline.yaml_file import shown
from targets.records import EnergyPlan


def quantity(dimension: str) -> BeforeValidator:
    def parse(value: object) -> float:
        try:
            return parse_quantity(value, dimension)
        except UsageError as error:
            raise ValueError(f"{error.message}; {error.hint}") from None

    return BeforeValidator(parse)


def described(example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": ["string", "number"], "description": f"a quantity such as {example}"})


Bytes = Annotated[float, quantity("bytes"), described("1.5 MB")]
Milliseconds = Annotated[float, quantity("ms"), described("20 ms")]
Seconds = Annotated[float, quantity("s"), described("0.5 s")]
Share = Annotated[float, quantity("share"), described("3 %")]
Joules = Annotated[float, quantity("j"), described("30 mJ")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceConfig(Section):
    """The trained model."""

    model: str = Field(
        description="Keras .keras or .h5 file, TensorFlow SavedModel folder, .onnx or .tflite file, PyTorch .pt2 "
        "(torch.export), or file.py:function, which returns a torch.nn.Module, or that and example inputs"
    )
    inputs: dict[str, tuple[int, ...]] = Field(
        default_factory=dict,
        description="Shape with batch for each input that leaves dimensions free, -1 to keep one free; without it the "
        "first sample decides",
    )
    signature: str = Field(default="serving_default", description="SavedModel signature")
    factory: str = Field(default="", description="file.py:function that builds the model whose weights the file holds")
    state: dict[str, str] = Field(
        default_factory=dict,
        description="of a model whose state the caller carries: each state output and the input it feeds at the next "
        "step. A sample is a sequence then: [steps, ...]",
    )
    opset: int = Field(default=17, ge=13, le=23, description="ONNX opset of the export")


class CalibrationConfig(Section):
    """How the ranges of activations are found; static recipes use them."""

    method: Method = Field(
        default="best",
        description="min-max, percentile, entropy (KL divergence), mse (least squared error), "
        "or best: for each tensor the one with the least quantization error",
    )
    percentile: float = Field(default=99.99, gt=50, le=100, description="share of the values that is kept, in %")
    memory: Bytes = Field(
        default=1e9,
        description="what calibration may add to the process; where all tensors at once need more, "
        "they are observed in groups, one pass over the data each",
    )
    samples: int | None = Field(
        default=None, ge=1, description="at most so many calibration samples, chosen by chance; default: all"
    )
    seed: int = Field(default=0, ge=0, description="of that choice")
    merge: list[str] = Field(
        default_factory=list,
        description="sketches of other samples, from earlier runs or other machines, that count as well",
    )


class QatConfig(Section):
    """Fine-tuning for the recipes with `qat` in their name. Without truth or loss the float model is the teacher."""

    epochs: int = Field(default=20, ge=1, description="passes over the samples, at most")
    patience: int = Field(default=8, ge=1, description="stop after so many epochs without a better held-out loss")
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="step of Adam relative to a layer's weights; default: 0.003 for int4, else 0.0003",
    )
    held_out: float = Field(default=0.2, gt=0, lt=1, description="share of the calibration samples that only judges")
    samples: int = Field(default=1024, ge=2, description="calibration samples to train on, at most: kept on disk")
    memory: Bytes = Field(
        default=2e9, gt=0, description="what training may add to the process; smaller parts if need be"
    )
    seed: int = Field(default=0, ge=0)
    truth: Truth | None = Field(default=None, description="right answers of the calibration samples, as in `data`")
    loss: str = Field(default="", description="your own, added to distillation: file.py:function(outputs, truth)")


class QualityConfig(Section):
    """How answers are judged against the truth; fidelity to the float model is always measured."""

    metrics: list[MetricSpec] = Field(default_factory=list)


class MeasureConfig(Section):
    """How long each candidate is measured on each target."""

    warm: Seconds = Field(default=0.4, description="time given to warm samples, after the warm-up")
    min_samples: int = Field(default=3, ge=3, description="at least so many warm samples, however slow the model")
    max_samples: int = Field(default=2000, ge=3)
    margin: Share = Field(default=0.03, description="how much slower B may be than A in `deploy compare A B`")
    energy: bool | None = Field(
        default=None,
        description="measure energy on targets that have a power meter: some 90 s for each candidate. "
        "Default: when there is a budget for energy, or `choose: energy`",
    )
    energy_window: Seconds = Field(
        default=10.0, description="of inference under the meter; less does not hold a budget"
    )
    energy_windows: int = Field(default=5, ge=1, description="so many of them, as for the window's length")


class SearchConfig(Section):
    """How an `auto` recipe looks for its mix of precisions."""

    target: str = Field(default="", description="where latency is measured; empty: the first target of the run")
    evaluations: int = Field(default=40, ge=8, description="at most so many mixes are made and judged")
    samples: int = Field(default=200, ge=1, description="at most so many test samples decide between mixes")


class MixedConfig(Section):
    """The precision of every op in the `mixed` recipes. ONNX has no float16 and no int8x4 here."""

    ops: dict[str, Precision] = Field(
        default_factory=dict,
        description="op type, or regular expression for its whole name, -> precision; the first that fits an op "
        "counts, and each must fit one",
    )
    rest: Precision = Field(default="int8", description="precision of all other ops")


class BudgetConfig(Section):
    """What a candidate may cost on each target; what is not stated is not judged."""

    size: Bytes | None = None
    latency_p90: Milliseconds | None = None
    peak_memory: Bytes | None = None
    energy: Joules | None = Field(default=None, description="per inference")
    max_drop: dict[str, float] = Field(
        default_factory=dict, description="largest loss against the float model per metric, in the metric's unit"
    )
    min_fidelity_db: float | None = Field(
        default=10.0, description="least SQNR against the float model; below it an artifact is broken, not just worse"
    )


class AnyTarget(Section):
    """What a target of any transport may say."""

    groups: list[str] = Field(default_factory=list, description="names that `--target` understands for several devices")
    labels: dict[str, str] = Field(
        default_factory=dict, description="your own words for selecting, such as {site: lyon, soc: bcm2712}"
    )
    activate_hook: list[str] = Field(
        default=[],
        description="program on the device with arguments, run after a switch, such as one that restarts the service",
    )
    health: list[str] = Field(
        default=[], description="program on the device that ends with 0 when all is well after a switch"
    )
    meter: str = Field(
        default="",
        description="power meter, as `deploy targets probe` lists them, csv:PATH, replay:PATH or none; empty: the best",
    )

    device_class: str = Field(
        default="default",
        alias="class",
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$",
        description="devices of one class get the same model; a release holds one model per class",
    )

    @field_validator("labels", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        # YAML reads `rack: 7` as a number; a label is what was written.
        if not isinstance(value, dict):
            return value
        return {key: str(v) if isinstance(v, int | float) else v for key, v in value.items()}


class LocalTarget(AnyTarget):
    """This machine: the same agent program, run as a child process in its own folder."""

    transport: Literal["local"] = "local"
    python: str = Field(default="", description="interpreter; empty: this one")
    threads: int = Field(default=1, ge=1, description="threads of the runtime")


class SshTarget(AnyTarget):
    """A board reached over SSH, with strict host keys."""

    transport: Literal["ssh"] = "ssh"
    host: str = Field(description="name, address, or a Host of ~/.ssh/config (ProxyJump is honoured)")
    user: str = Field(default="", description="empty: ~/.ssh/config, else the user running this")
    port: int = Field(default=0, ge=0, le=65535, description="0: ~/.ssh/config, else 22")
    identity_file: str = Field(default="", description="private key; empty: the agent, ~/.ssh/config, ~/.ssh/id_*")
    known_hosts: str = Field(default="", description="empty: ~/.ssh/known_hosts and the system's")
    ssh_config: str = Field(default="", description="empty: ~/.ssh/config")
    python: str = Field(default="", description="interpreter on the device that has the runtime; empty: python3")
    root: str = Field(default="", description="folder on the device; empty: ~/.edge-deploy")
    threads: int = Field(default=1, ge=1, description="threads of the runtime")
    connect_timeout: Seconds = Field(default=10.0, description="to connect, in seconds or as `10 s`")
    step_timeout: Seconds = Field(default=600.0, description="for one push or one benchmark, as above")


class AdbTarget(AnyTarget):
    """A phone, or a board with an adb daemon, reached by the `adb` program of this machine."""

    transport: Literal["adb"]
    serial: str = Field(default="", description="as `adb devices` shows it, in quotes; empty: the only one attached")
    host: str = Field(default="", description="instead of a serial: name or address for wireless debugging")
    port: int = Field(default=0, ge=0, le=65535, description="of wireless debugging; 0: 5555")
    runner: str = Field(default="", description="what measures there; empty: the first that is installed")
    libraries: str = Field(
        default="", description="runtimes for the runner: the app's .aar or .apk; or the program benchmark_model"
    )
    fixed_performance: bool = Field(
        default=False, description="Android's mode of that name during benchmarks: clocks that the phone can hold"
    )
    app: str = Field(default="", description="package of a debuggable app; its folder gets each release, by run-as")
    python: str = Field(default="", description="interpreter of a device that has one; empty: it has none")
    root: str = Field(default="", description="folder on the device; empty: /data/local/tmp/edge-deploy")
    threads: int = Field(default=1, ge=1, description="threads of the runtime")
    connect_timeout: Seconds = Field(default=10.0, description="to connect, in seconds or as `10 s`")
    step_timeout: Seconds = Field(default=600.0, description="for one push or one benchmark, as above")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.serial and self.host:
            raise ValueError("`serial` and `host` are two ways to the same device: give one of them")
        return self


TargetConfig = Annotated[LocalTarget | SshTarget | AdbTarget, Field(union_mode="left_to_right")]
_TARGET_KINDS: Mapping[str, type[LocalTarget] | type[SshTarget] | type[AdbTarget]] = {
    "local": LocalTarget,
    "ssh": SshTarget,
    "adb": AdbTarget,
}


def _target(value: object) -> object:
    # Choosing the model by `transport` ourselves gives errors about that transport's keys only.
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise ValueError(f"should be keys with values, such as {{host: pi.local, user: pi}}, not {shown(value)}")
    kind = value.get("transport", "ssh" if "host" in value else "adb" if "serial" in value else "local")
    if kind not in _TARGET_KINDS:
        raise ValueError(f"unknown transport {kind!r}, there are {', '.join(_TARGET_KINDS)}")
    return _TARGET_KINDS[kind].model_validate({"transport": kind, **value})


class ReleaseConfig(Section):
    """What a release says of itself, and who signs it. No secret stands here: a key is a file, elsewhere."""

    key: str = Field(default="", description="private key to sign with, a file made by `deploy release keygen`")
    license: str = Field(default="", description="of the model, as an SPDX identifier such as Apache-2.0")
    data_license: str = Field(default="", description="of the calibration samples, as above")
    summary: str = Field(default="", description="what the model is for, in a sentence; for the model card")


class Config(Section):
    """All of deploy.yaml."""

    name: str = Field(default="", description="name of the report and release; default: the model's file name")
    source: SourceConfig
    data: DataSection
    calibration: CalibrationConfig = CalibrationConfig()
    recipes: list[str] = Field(
        default_factory=list,
        description="default: all that suit the source, without options; `auto` is the search for the source's format",
    )
    qat: QatConfig = QatConfig()
    quality: QualityConfig = QualityConfig()
    measure: MeasureConfig = MeasureConfig()
    search: SearchConfig = SearchConfig()
    mixed: MixedConfig = MixedConfig()
    budgets: BudgetConfig = BudgetConfig()
    release: ReleaseConfig = ReleaseConfig()
    choose: Objective = Field(default="latency", description="what the chosen recipe is best at among those that pass")
    targets: dict[str, Annotated[TargetConfig, BeforeValidator(_target)]] = Field(
        default={"local": LocalTarget()},
        min_length=1,
        description="devices by name; `include` and `defaults` are no names",
    )

    rollout: RolloutConfig = RolloutConfig()
    journal: str = Field(
        default="",
        description="where rollouts are remembered, as postgresql://user@host/database; empty: a file in the state "
        "folder. Never with a password",
    )

    @model_validator(mode="after")
    def _one_choice_of_samples(self) -> Self:
        part = self.data.calibrate
        if self.calibration.samples is not None and not isinstance(part, str) and part.limit is not None:
            raise ValueError("calibration.samples and data.calibrate.limit both choose samples; say one of them")
        return self

    def energy_plan(self) -> EnergyPlan | None:
        """The windows under a power meter; None when nobody asks for energy. Idling takes 0.4 of a window each time."""
        asked = self.measure.energy
        if asked is None:
            asked = self.budgets.energy is not None or self.choose == "energy"
        return self.energy_windows() if asked else None

    def energy_windows(self) -> EnergyPlan:
        """The windows under a power meter, for who asks for energy."""
        window_s = self.measure.energy_window
        return EnergyPlan(windows=self.measure.energy_windows, window_s=window_s, idle_s=0.4 * window_s)

    def calibration_data(self) -> DataSpec:
        """The calibration samples, with the choice among them that `calibration` makes."""
        spec = self.data.spec("calibrate")
        if self.calibration.samples is None:
            return spec
        return spec.model_copy(update={"limit": self.calibration.samples, "seed": self.calibration.seed})


class SshHosts(Section):
    """Devices that an ssh_config names."""

    ssh_config: str = Field(description="such as ~/.ssh/config")
    hosts: list[str] = Field(default=["*"], description="which of its aliases, as globs")


class AnsibleHosts(Section):
    """Devices of an Ansible inventory."""

    ansible: str = Field(description="inventory file, INI or YAML")
    hosts: list[str] = Field(default=["*"], description="which of its hosts and groups, as globs")


class FleetFile(Section):
    """A file of devices, to be included."""

    targets: dict[str, Annotated[TargetConfig, BeforeValidator(_target)]] = Field(default_factory=dict)


class Shared(Section):
    """What stands among `targets` beside the devices themselves."""

    include: list[str | SshHosts | AnsibleHosts] = Field(
        default_factory=list, description="more devices: fleet files (globs), ssh_config files, Ansible inventories"
    )
    defaults: dict[str, Any] = Field(
        default_factory=dict, description="settings for devices of this file and its inventories that do not say them"
    )

    @field_validator("include", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str | dict) else value


def config_schema() -> dict[str, Any]:
    """JSON Schema of deploy.yaml, for completion in editors."""
    described = Config.model_json_schema()
    # What is read although the models do not say so: an empty target is a local one, and two keys are no devices.
    described["properties"]["targets"]["additionalProperties"]["anyOf"].append({"type": "null"})
    shared = Shared.model_json_schema()
    described["properties"]["targets"]["properties"] = shared["properties"]
    described["$defs"].update(shared["$defs"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described, "title": "deploy.yaml"}

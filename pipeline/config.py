"""deploy.yaml: its models, and reading it with errors that name the line.

Everything the file may say is declared here; the JSON Schema for editors (`deploy schema config`) is generated from it.
Paths are relative to the file.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.errors import UsageError
from pipeline.quality.metrics import METRICS, MetricSpec, open_metrics
from pipeline.quantities import parse_quantity
from pipeline.recipes import RECIPES
from pipeline.records import JUDGED_FIDELITY, Objective
from pipeline.samples import DataSection
from pipeline.samples.preprocess import STEPS
from pipeline.samples.user_function import is_function_reference
from targets.records import TargetSpec


def _quantity(dimension: str) -> BeforeValidator:
    def parse(value: object) -> float:
        try:
            return parse_quantity(value, dimension)
        except UsageError as error:
            raise ValueError(f"{error.message}; {error.hint}") from None

    return BeforeValidator(parse)


def _described(example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": ["string", "number"], "description": f"a quantity such as {example}"})


Bytes = Annotated[float, _quantity("bytes"), _described("1.5 MB")]
Milliseconds = Annotated[float, _quantity("ms"), _described("20 ms")]
Seconds = Annotated[float, _quantity("s"), _described("0.5 s")]
Joules = Annotated[float, _quantity("j"), _described("30 mJ")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceConfig(_Section):
    """The trained model."""

    model: str = Field(description="Keras 3 .keras file, TensorFlow SavedModel folder, or .onnx file")
    inputs: dict[str, tuple[int, ...]] = Field(
        default_factory=dict,
        description="Shape with batch for each input that leaves dimensions free; without it the first sample decides",
    )
    signature: str = Field(default="serving_default", description="SavedModel signature")
    opset: int = Field(default=17, ge=13, le=23, description="ONNX opset of the export")


class QualityConfig(_Section):
    """How answers are judged against the truth; fidelity to the float model is always measured."""

    metrics: list[MetricSpec] = Field(default_factory=list)


class MeasureConfig(_Section):
    """How long each candidate is measured on each target."""

    warm: Seconds = Field(default=0.4, description="time given to warm samples, after the warm-up")
    min_samples: int = Field(default=3, ge=3, description="at least so many warm samples, however slow the model")
    max_samples: int = Field(default=2000, ge=3)


class BudgetConfig(_Section):
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


class LocalTarget(_Section):
    """This machine: the same agent program, run as a child process in its own folder."""

    transport: Literal["local"] = "local"
    python: str = Field(default="", description="interpreter; empty: this one")
    threads: int = Field(default=1, ge=1, description="threads of the runtime")


class SshTarget(_Section):
    """A board reached over SSH, with strict host keys."""

    transport: Literal["ssh"]
    host: str = Field(description="name, address, or a Host of ~/.ssh/config (ProxyJump is honoured)")
    user: str = Field(default="", description="empty: ~/.ssh/config, else the user running this")
    port: int = Field(default=0, ge=0, le=65535, description="0: ~/.ssh/config, else 22")
    identity_file: str = Field(default="", description="private key; empty: the agent, ~/.ssh/config, ~/.ssh/id_*")
    known_hosts: str = Field(default="", description="empty: ~/.ssh/known_hosts and the system's")
    ssh_config: str = Field(default="", description="empty: ~/.ssh/config")
    python: str = Field(default="", description="interpreter on the device that has the runtime; empty: python3")
    root: str = Field(default="", description="folder on the device; empty: ~/.edge-deploy")
    threads: int = Field(default=1, ge=1, description="threads of the runtime")
    connect_timeout: Seconds = Field(default=10.0, description="for the connection, all of it")
    step_timeout: Seconds = Field(default=600.0, description="for one push or one benchmark")


TargetConfig = Annotated[LocalTarget | SshTarget, Field(union_mode="left_to_right")]
_TARGET_KINDS: Mapping[str, type[LocalTarget] | type[SshTarget]] = {"local": LocalTarget, "ssh": SshTarget}


def _target(value: object) -> object:
    # Choosing the model by `transport` ourselves gives errors about that transport's keys only.
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise ValueError(f"should be keys with values, such as {{host: pi.local, user: pi}}, not {_shown(value)}")
    kind = value.get("transport", "ssh" if "host" in value else "local")
    if kind not in _TARGET_KINDS:
        raise ValueError(f"unknown transport {kind!r}, there are {', '.join(_TARGET_KINDS)}")
    return _TARGET_KINDS[kind].model_validate({"transport": kind, **value})


class Config(_Section):
    """All of deploy.yaml."""

    name: str = Field(default="", description="name of the report and release; default: the model's file name")
    source: SourceConfig
    data: DataSection
    recipes: list[str] = Field(default_factory=list, description="recipe names; default: all that suit the source")
    quality: QualityConfig = QualityConfig()
    measure: MeasureConfig = MeasureConfig()
    budgets: BudgetConfig = BudgetConfig()
    choose: Objective = Field(default="latency", description="what the chosen recipe is best at among those that pass")
    targets: dict[str, Annotated[TargetConfig, BeforeValidator(_target)]] = Field(
        default={"local": LocalTarget()}, min_length=1
    )


class LoadedConfig(BaseModel):
    """A configuration and the file it came from."""

    model_config = ConfigDict(frozen=True)
    path: Path
    config: Config
    budgets_as_written: dict[str, str]
    other_targets: tuple[TargetSpec, ...] = ()

    @property
    def base(self) -> Path:
        """The folder that the file's paths are relative to."""
        return self.path.parent

    def target_specs(self) -> tuple[TargetSpec, ...]:
        """The targets as the `targets` package wants them."""
        if self.other_targets:
            return self.other_targets
        return tuple(_spec(name, target, self.base) for name, target in self.config.targets.items())

    def with_targets(self, specs: tuple[TargetSpec, ...]) -> Self:
        """The same configuration for other devices."""
        return self.model_copy(update={"other_targets": specs})


def load_config(path: Path) -> LoadedConfig:
    """Read deploy.yaml.

    Raises:
        UsageError: the file is missing, is no YAML 1.2, repeats a key, or says something that is not understood;
            the message is `file:line: key: reason`, one line per fault.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(
            f"{path}: there is no such file", hint="give one with --config FILE, or make one with `deploy init`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}", hint="deploy.yaml is UTF-8 text") from None
    yaml = YAML(typ="rt")
    try:
        raw = yaml.load(text)
    except DuplicateKeyError as error:
        line = (error.problem_mark.line + 1) if error.problem_mark else 0
        problem = str(error.problem).split(" with ")[0].replace("found duplicate key", "duplicate key")
        raise UsageError(f"{path}:{line}: {problem}", hint="say it once") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UsageError(
            f"{path}:{mark.line + 1 if mark else 0}: {error.problem or error.context}", hint="fix the YAML"
        ) from None
    except YAMLError as error:
        raise UsageError(f"{path}: not YAML: {error}", hint="fix the YAML") from None
    if not isinstance(raw, dict):
        raise UsageError(f"{path}:1: the file is empty or no mapping", hint="make a fresh one with `deploy init`")
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        faults = [_fault(path, raw, fault) for fault in error.errors()]
        raise UsageError("\n".join(dict.fromkeys(faults)), hint="`deploy schema config` prints all keys") from None
    _check_names(path, raw, config)
    written = {str(key): _flat(value) for key, value in (raw.get("budgets") or {}).items()}
    return LoadedConfig(path=path.resolve(), config=config, budgets_as_written=written)


def _check_names(path: Path, raw: Any, config: Config) -> None:
    """Names that refer to something outside the file's own grammar."""
    for index, name in enumerate(config.recipes):
        line = _line(raw, ("recipes", index))
        if name not in RECIPES:
            raise UsageError(
                f"{path}:{line}: recipes: unknown recipe {name!r}{nearest(name, RECIPES)}",
                hint="`deploy recipes` lists them",
            )
        if config.recipes.index(name) != index:
            raise UsageError(f"{path}:{line}: recipes: {name!r} stands twice", hint="say it once")
    for index, metric in enumerate(config.quality.metrics):
        line = _line(raw, ("quality", "metrics", index))
        try:
            _check_metric(metric, path.parent)
        except UsageError as error:
            raise UsageError(f"{path}:{line}: quality.metrics[{index}]: {error.message}", hint=error.hint) from None
    _check_drops(path, raw, config)


def _check_metric(metric: MetricSpec, base: Path) -> None:
    named = metric if isinstance(metric, str) else getattr(metric, "name", "") or getattr(metric, "path", "")
    if is_function_reference(named):
        file = named.rpartition(":")[0]
        if file.endswith(".py") and not (base / Path(file).expanduser()).is_file():
            raise UsageError(f"there is no file {file}", hint="paths are relative to deploy.yaml's folder")
    elif named not in METRICS:
        raise UsageError(
            f"unknown metric {named!r}{nearest(named, METRICS)}",
            hint=f"there are {', '.join(METRICS)}, and file.py:function of your own",
        )
    elif not isinstance(metric, str):
        open_metrics([metric], base)  # refuses an option that this metric has not


def _check_drops(path: Path, raw: Any, config: Config) -> None:
    """A loss that is limited but never measured would be a limit that never holds."""
    metrics = config.quality.metrics
    names = [metric if isinstance(metric, str) else getattr(metric, "name", "") for metric in metrics]
    if any(not name or is_function_reference(name) for name in names):
        return  # a function of the user's names its scores itself; the gate checks them
    known = [*names, *JUDGED_FIDELITY]
    for name in config.budgets.max_drop:
        if name not in known:
            line = _line(raw, ("budgets", "max_drop", name))
            raise UsageError(
                f"{path}:{line}: budgets.max_drop.{name}: nothing measures this{nearest(name, known)}",
                hint=f"add it to quality.metrics; without that there are {', '.join(known)}",
            )


def nearest(word: str, known: Sequence[str] | Mapping[str, object]) -> str:
    """A "did you mean" for an error message, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""


def _fault(path: Path, raw: Any, fault: Mapping[str, Any]) -> str:
    kind, location = str(fault["type"]), tuple(fault["loc"])
    written = _as_written(raw, location[:-1] if kind == "missing" else location, whole=kind == "extra_forbidden")
    if kind == "missing":
        written = (*written, location[-1])
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in written).removeprefix(".")
    return f"{path}:{_line(raw, written)}: {key or 'deploy.yaml'}: {_reason(kind, location, fault)}"


def _as_written(node: Any, location: tuple[Any, ...], *, whole: bool = False) -> tuple[Any, ...]:
    """The part of pydantic's location that stands in the file: members of unions appear in it by names of their own,
    which may be the same as a key. `whole`: its last part does stand there."""
    if not location:
        return ()
    skipped = _as_written(node, location[1:], whole=whole)
    part = location[0]
    inside = part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))
    if not inside:
        return skipped
    taken = (part, *_as_written(node[part], location[1:], whole=whole))
    if whole and (taken[-1] == location[-1]) != (skipped[-1:] == location[-1:]):
        return taken if taken[-1] == location[-1] else skipped
    return taken if len(taken) >= len(skipped) else skipped


def _reason(kind: str, location: tuple[Any, ...], fault: Mapping[str, Any]) -> str:
    """What is wrong, in words of YAML instead of Python's."""
    given, context = fault.get("input"), fault.get("ctx", {})
    if kind == "extra_forbidden":
        known = _known_keys(location[:-1])
        near = nearest(str(location[-1]), known)
        return f"unknown key{near}" if near or not known else f"unknown key; here there are {', '.join(known)}"
    if kind == "missing":
        return "is required"
    if kind == "literal_error":
        return (
            f"should be {context['expected']}, not {given!r}{nearest(str(given), _QUOTED.findall(context['expected']))}"
        )
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"should be keys with values, such as {{key: value}}, not {_shown(given)}"
    if kind in ("list_type", "tuple_type"):
        return f"should be a list, such as [a, b], not {_shown(given)}"
    if kind in _SHOULD_BE:
        return f"should be {_SHOULD_BE[kind]}, not {_shown(given)}"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        bound = next(iter(context.values()))
        return f"should be {kind.replace('_', ' ').replace('than equal', 'than or equal to')} {bound}, not {given!r}"
    if kind == "too_short":
        return f"should have {context['min_length']} or more, has {context['actual_length']}"
    return str(fault["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")


_QUOTED = re.compile("'([^']*)'")
_SHOULD_BE: Mapping[str, str] = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "string_too_short": "a path",
    "string_type": "text",
}


def _shown(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict | list):
        return "keys with values" if isinstance(value, dict) else "a list"
    return repr(value)


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """The keys that a place in deploy.yaml may have, found by following the annotations of the models."""
    models: list[type[BaseModel]] = [Config]
    for part in location:
        if part in STEPS:
            models = [STEPS[part]]
            continue
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        inner = [found for field in fields for found in _models_in((field.annotation, field.metadata))]
        models = inner or models  # else an index, a key of a mapping, or the name of a union's member
    keys = dict.fromkeys(key for model in models for key in model.model_fields)
    return [key for key in keys if key != "step"]  # the tag of preprocessing steps, which is the key itself


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    parts = annotation if isinstance(annotation, tuple | list) else get_args(annotation)
    return [model for part in parts for model in _models_in(part)]


def _line(raw: Any, location: Sequence[Any]) -> int:
    """The line of the deepest part of `location` that the file has, counted from 1."""
    line = 1
    node: Any = raw
    for part in location:
        try:
            position = node.lc.item(part) if isinstance(part, int) else node.lc.key(part)
            line = position[0] + 1
            node = node[part]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return str(value)


def _spec(name: str, target: LocalTarget | SshTarget, base: Path) -> TargetSpec:
    if isinstance(target, LocalTarget):
        return TargetSpec(name=name, transport="local", python=target.python, threads=target.threads)

    def here(path: str) -> str:
        return str((base / Path(path).expanduser()).resolve()) if path else ""

    return TargetSpec(
        name=name,
        transport="ssh",
        host=target.host,
        user=target.user,
        port=target.port,
        identity_file=here(target.identity_file),
        known_hosts=here(target.known_hosts),
        ssh_config=here(target.ssh_config),
        python=target.python,
        root=target.root,
        connect_timeout_s=target.connect_timeout,
        step_timeout_s=target.step_timeout,
        threads=target.threads,
    )


def config_schema() -> dict[str, Any]:
    """JSON Schema of deploy.yaml, for completion in editors."""
    described = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "deploy.yaml", **described}

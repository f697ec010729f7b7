"""Reading deploy.yaml, with errors that name the line and the key as the user wrote it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.config import Config, LocalTarget, SshTarget, shown
from pipeline.errors import UsageError, nearest
from pipeline.quality.metrics import METRICS, MetricSpec, open_metrics
from pipeline.recipes import RECIPES
from pipeline.records import JUDGED_FIDELITY
from pipeline.samples.preprocess import STEPS
from pipeline.samples.user_function import is_function_reference
from targets.records import TargetSpec


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
            f"{path}: there is no such file", hint="give one with --config FILE, or make one with `deploy init FOLDER`"
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
        return f"should be keys with values, such as {{key: value}}, not {shown(given)}"
    if kind in ("list_type", "tuple_type"):
        return f"should be a list, such as [a, b], not {shown(given)}"
    if kind in _SHOULD_BE:
        return f"should be {_SHOULD_BE[kind]}, not {shown(given)}"
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

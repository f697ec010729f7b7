"""Reading deploy.yaml, with errors that name the line and the key as the user wrote it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from pipeline.config import Config
from pipeline.errors import UsageError, nearest
from pipeline.inventory.fleet import read_fleet
from pipeline.quality.metrics import METRICS, MetricSpec, open_metrics
from pipeline.recipes import AUTO, RECIPES, unknown
from pipeline.records import JUDGED_FIDELITY
from pipeline.samples.preprocess import STEPS
from pipeline.samples.user_function import is_function_reference
from pipeline.yaml_file import line_of, read_yaml, refuse_secrets, validated
from targets.records import TargetSpec


class LoadedConfig(BaseModel):
    """A configuration and the file it came from."""

    model_config = ConfigDict(frozen=True)
    path: Path
    config: Config
    budgets_as_written: dict[str, str]
    targets: tuple[TargetSpec, ...]  # of the file and of the fleet files and inventories it includes

    @property
    def base(self) -> Path:
        """The folder that the file's paths are relative to."""
        return self.path.parent

    def target_specs(self) -> tuple[TargetSpec, ...]:
        """The targets as the `targets` package wants them."""
        return self.targets

    def with_targets(self, specs: tuple[TargetSpec, ...]) -> Self:
        """The same configuration for other devices."""
        return self.model_copy(update={"targets": specs})


def load_config(path: Path) -> LoadedConfig:
    """Read deploy.yaml.

    Raises:
        UsageError: the file is missing, is no YAML 1.2, repeats a key, or says something that is not understood;
            the message is `file:line: key: reason`, one line per fault.
    """
    raw = read_yaml(path, missing_hint="give one with --config FILE, or make one with `deploy init FOLDER`")
    refuse_secrets(path, raw)
    fleet = read_fleet(path, raw)
    config = validated(path, raw, Config, hint="`deploy schema config` prints all keys", named=STEPS)
    targets = fleet.specs(config.targets)
    _check_names(path, raw, config, [spec.name for spec in targets])
    written = {str(key): _flat(value) for key, value in (raw.get("budgets") or {}).items()}
    return LoadedConfig(path=path.resolve(), config=config, budgets_as_written=written, targets=targets)


def _check_names(path: Path, raw: Any, config: Config, targets: Sequence[str]) -> None:
    """Names that refer to something outside the file's own grammar."""
    for index, name in enumerate(config.recipes):
        line = line_of(raw, ("recipes", index))
        if name not in RECIPES and name != AUTO:
            message, hint = unknown(name)
            raise UsageError(f"{path}:{line}: recipes: {message}", hint=hint)
        if config.recipes.index(name) != index:
            raise UsageError(f"{path}:{line}: recipes: {name!r} stands twice", hint="say it once")
    if config.search.target and config.search.target not in targets:
        raise UsageError(
            f"{path}:{line_of(raw, ('search', 'target'))}: search.target: there is no target {config.search.target!r}"
            f"{nearest(config.search.target, targets)}",
            hint=f"it has: {', '.join(targets)}",
        )
    for index, metric in enumerate(config.quality.metrics):
        line = line_of(raw, ("quality", "metrics", index))
        try:
            _check_metric(metric, path.parent)
        except UsageError as error:
            raise UsageError(f"{path}:{line}: quality.metrics[{index}]: {error.message}", hint=error.hint) from None
    try:
        _check_loss(config.qat.loss, path.parent)
    except UsageError as error:
        line = line_of(raw, ("qat", "loss"))
        raise UsageError(f"{path}:{line}: qat.loss: {error.message}", hint=error.hint) from None
    _check_drops(path, raw, config)


def _check_metric(metric: MetricSpec, base: Path) -> None:
    named = metric if isinstance(metric, str) else getattr(metric, "name", "") or getattr(metric, "path", "")
    if is_function_reference(named):
        _check_file(named, base)
    elif named not in METRICS:
        raise UsageError(
            f"unknown metric {named!r}{nearest(named, METRICS)}",
            hint=f"there are {', '.join(METRICS)}, and file.py:function of your own",
        )
    elif not isinstance(metric, str):
        open_metrics([metric], base)  # refuses an option that this metric has not


def _check_loss(loss: str, base: Path) -> None:
    if loss and not is_function_reference(loss):
        raise UsageError(f"{loss!r} is no function", hint="write file.py:function")
    _check_file(loss, base)


def _check_file(function: str, base: Path) -> None:
    file = function.rpartition(":")[0]
    if file.endswith(".py") and not (base / Path(file).expanduser()).is_file():
        raise UsageError(f"there is no file {file}", hint="paths are relative to deploy.yaml's folder")


def _check_drops(path: Path, raw: Any, config: Config) -> None:
    """A loss that is limited but never measured would be a limit that never holds."""
    metrics = config.quality.metrics
    names = [metric if isinstance(metric, str) else getattr(metric, "name", "") for metric in metrics]
    if any(not name or is_function_reference(name) for name in names):
        return  # a function of the user's names its scores itself; the gate checks them
    known = [*names, *JUDGED_FIDELITY]
    for name in config.budgets.max_drop:
        if name not in known:
            line = line_of(raw, ("budgets", "max_drop", name))
            raise UsageError(
                f"{path}:{line}: budgets.max_drop.{name}: nothing measures this{nearest(name, known)}",
                hint=f"add it to quality.metrics; without that there are {', '.join(known)}",
            )


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return str(value)

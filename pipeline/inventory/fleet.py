"""The devices of a configuration: its own, those of fleet files, and those of other tools' inventories."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.config import AdbTarget, AnsibleHosts, FleetFile, LocalTarget, Shared, SshHosts, SshTarget, TargetConfig
from pipeline.errors import UsageError
from pipeline.inventory.ansible import ansible_hosts
from pipeline.inventory.found import Found
from pipeline.inventory.specs import target_spec
from pipeline.inventory.ssh_config import ssh_config_hosts
from pipeline.yaml_file import line_of, read_yaml, refuse_secrets, validated
from targets.records import TargetSpec

_KINDS: Mapping[str, type[TargetConfig]] = {"local": LocalTarget, "ssh": SshTarget, "adb": AdbTarget}
_HINT = "`deploy schema config` prints all keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """A device and where it is written."""

    spec: TargetSpec
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What a configuration includes; its own devices are known when it has been validated."""

    path: Path
    lines: Mapping[str, int]
    included: tuple[_Placed, ...]

    def specs(self, own: Mapping[str, TargetConfig]) -> tuple[TargetSpec, ...]:
        """All devices, its own first; raises UsageError for a name that stands twice and when there is none."""
        here = [
            _Placed(spec=target_spec(name, target, self.path.parent), place=f"{self.path}:{self.lines.get(name, 1)}")
            # The default target is for a file that says nothing about devices.
            for name, target in (own if self.lines or not self.included else {}).items()
        ]
        found: dict[str, _Placed] = {}
        for placed in (*here, *self.included):
            if other := found.get(placed.spec.name):
                raise UsageError(
                    f"{placed.place}: targets.{placed.spec.name}: this name is taken by {other.place}",
                    hint="device names are unique over all files: rename one, or narrow `hosts:` of the inventory",
                )
            found[placed.spec.name] = placed
        if not found:
            raise UsageError(f"{self.path}: targets: there is no device", hint="say one, or leave `targets` out")
        return tuple(placed.spec for placed in found.values())


def read_fleet(path: Path, raw: Any, above: Sequence[Path] = ()) -> Fleet:
    """Take `include` and `defaults` out of the file's `targets`, apply the defaults, and read what is included.

    `above`: the files that include this one. Raises UsageError or InputError with file and line.
    """
    targets = raw.get("targets")
    if not isinstance(targets, dict):
        return Fleet(path=path, lines={}, included=())
    places = {key: line_of(raw, ("targets", key)) for key in targets}
    words = {key: targets.pop(key) for key in ("include", "defaults") if key in targets}
    shared = _shared(path, words, places)
    lines = {name: places[name] for name in targets}
    for settings in targets.values():
        _fill(settings, shared.defaults)
    if not targets and words:
        del raw["targets"]
    included = [
        placed
        for index, entry in enumerate(shared.include)
        for placed in _included(path, entry, _line(words, index, places), shared.defaults, (*above, path.resolve()))
    ]
    return Fleet(path=path, lines=lines, included=tuple(included))


def _shared(path: Path, words: Mapping[str, Any], places: Mapping[str, int]) -> Shared:
    try:
        shared = Shared.model_validate(words)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        raise UsageError(
            f"{path}:{places.get(key, 1)}: targets.{key}: should be "
            + (
                "keys with values, such as {user: pi}"
                if key == "defaults"
                else "fleet files, {ssh_config: FILE} or {ansible: FILE}, each with `hosts:` if not all are meant"
            ),
            hint=_HINT,
        ) from None
    known = {key for kind in _KINDS.values() for key in _keys(kind)}
    for key in shared.defaults:
        if key not in known or key == "transport":
            raise UsageError(f"{path}:{places['defaults']}: targets.defaults.{key}: no target has this", hint=_HINT)
    return shared


def _keys(kind: type[BaseModel]) -> list[str]:
    """The keys of a target as they are written."""
    return [field.alias or name for name, field in kind.model_fields.items()]


def _fill(settings: Any, defaults: Mapping[str, Any]) -> None:
    """Add what the device does not say and its transport knows; labels are added one by one."""
    if not isinstance(settings, dict):
        return  # an error, which validation tells
    given = "ssh" if "host" in settings else "adb" if "serial" in settings else "local"
    kind = _KINDS.get(str(settings.get("transport", given)))
    for key, value in defaults.items():
        if kind is None or key not in _keys(kind):
            continue
        own = settings.setdefault(key, value)
        if key == "labels" and isinstance(own, dict) and isinstance(value, dict):
            settings[key] = {**value, **own}


def _line(words: Mapping[str, Any], index: int, places: Mapping[str, int]) -> int:
    listed = words["include"]
    return listed.lc.item(index)[0] + 1 if isinstance(listed, list) and hasattr(listed, "lc") else places["include"]


def _included(
    path: Path, entry: str | SshHosts | AnsibleHosts, line: int, defaults: Mapping[str, Any], above: Sequence[Path]
) -> Iterator[_Placed]:
    if isinstance(entry, str):
        for file in _files(path, entry, line):
            if file.resolve() in above:
                raise UsageError(
                    f"{path}:{line}: targets.include: {entry} includes this file again", hint="break the circle"
                )
            yield from _fleet_file(file, above)
        return
    named = entry.ssh_config if isinstance(entry, SshHosts) else entry.ansible
    source = (path.parent / Path(named).expanduser()).resolve()
    hosts = ssh_config_hosts(source) if isinstance(entry, SshHosts) else ansible_hosts(source)
    for pattern in entry.hosts:
        if not any(_meant(host, pattern) for host in hosts):
            raise UsageError(
                f"{path}:{line}: targets.include: {named} has no host or group {pattern!r}",
                hint=f"it has {', '.join(host.name for host in hosts[:20]) or 'none'}",
            )
    for host in hosts:
        if any(_meant(host, pattern) for pattern in entry.hosts):
            yield _Placed(spec=_of(host, source, defaults), place=f"{source}:{host.line}")


def _meant(host: Found, pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in (host.name, *host.groups))


def _of(host: Found, source: Path, defaults: Mapping[str, Any]) -> TargetSpec:
    settings: dict[str, Any] = {"transport": "ssh", **host.settings}
    settings.update(groups=list(host.groups), labels=dict(host.labels))
    _fill(settings, {key: value for key, value in defaults.items() if key != "groups"})
    settings["groups"] = [*settings["groups"], *defaults.get("groups", ())]
    try:
        target = SshTarget.model_validate(settings)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        raise UsageError(
            f"{source}:{host.line}: {host.name}: {key}: {fault['msg']}", hint="correct the inventory"
        ) from None
    return target_spec(host.name, target, source.parent)


def _files(path: Path, pattern: str, line: int) -> list[Path]:
    """The files of a glob, by name; one that matches nothing is a slip."""
    whole = Path(pattern).expanduser()
    top = Path(whole.anchor) if whole.is_absolute() else path.parent
    found = sorted(top.glob(str(whole.relative_to(whole.anchor))))
    if not found:
        raise UsageError(
            f"{path}:{line}: targets.include: there is no file {pattern}", hint="paths are relative to this file"
        )
    return found


def _fleet_file(path: Path, above: Sequence[Path]) -> Iterator[_Placed]:
    raw = read_yaml(path, missing_hint="a fleet file has `targets:`")
    refuse_secrets(path, raw)
    fleet = read_fleet(path, raw, above)
    own = validated(path, raw, FleetFile, hint="a fleet file has `targets:` and nothing else").targets
    for spec in fleet.specs(own) if own or fleet.included else ():
        yield _Placed(spec=spec, place=f"{path}:{fleet.lines.get(spec.name, 1)}")

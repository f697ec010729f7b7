"""Reading YAML into pydantic models, with errors that name the line and the key as the user wrote it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.errors import UsageError, nearest

_Model = TypeVar("_Model", bound=BaseModel)


def read_yaml(path: Path, *, missing_hint: str) -> Any:
    """The mapping in a YAML 1.2 file, which still knows its line numbers; raises UsageError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file", hint=missing_hint) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}", hint=f"{path.name} is UTF-8 text") from None
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
        raise UsageError(f"{path}:1: the file is empty or no mapping", hint=missing_hint)
    return raw


# Names of keys that hold a secret, whatever section somebody thinks they belong to.
_SECRET = re.compile(
    r"(?:.*[_-])?(?:pass(?:word|phrase|wd)|secret|token|api[_-]?key|private[_-]?key|credentials?)s?", re.IGNORECASE
)
_USERS_NAMES = (("source", "inputs"), ("budgets", "max_drop"), ("targets",))  # whose keys are names that the user gives


def refuse_secrets(path: Path, raw: Any) -> None:
    """Raise UsageError where a secret stands, or where a key's name says that one does: the file is shared."""

    def look(node: Any, location: tuple[Any, ...]) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            place = (*location, key)
            named = isinstance(key, str) and location not in _USERS_NAMES and _SECRET.fullmatch(key)
            if named or (isinstance(value, str) and "-----BEGIN" in value):
                raise UsageError(
                    f"{path}:{line_of(raw, place)}: {'.'.join(map(str, place))}: a secret does not belong in this file",
                    hint="take it out and change it, it may have been read; keys are files (`release: {key: FILE}`), "
                    "a passphrase comes from DEPLOY_KEY_PASSPHRASE",
                )
            look(value, place)

    look(raw, ())


def validated(
    path: Path, raw: Any, model: type[_Model], *, hint: str, named: Mapping[str, type[BaseModel]] | None = None
) -> _Model:
    """The file's mapping as a model; raises UsageError with `file:line: key: reason`, one line per fault.

    `named`: models that a key of the file chooses by its name.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        known = _Known(model, named or {})
        faults = [_fault(path, raw, fault, known) for fault in error.errors()]
        raise UsageError("\n".join(dict.fromkeys(faults)), hint=hint) from None


def shown(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict | list):
        return "keys with values" if isinstance(value, dict) else "a list"
    return repr(value)


def _fault(path: Path, raw: Any, fault: Mapping[str, Any], known: "_Known") -> str:
    kind, location = str(fault["type"]), tuple(fault["loc"])
    written = _as_written(raw, location[:-1] if kind == "missing" else location, whole=kind == "extra_forbidden")
    if kind == "missing":
        written = (*written, location[-1])
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in written).removeprefix(".")
    return f"{path}:{line_of(raw, written)}: {key or path.name}: {_reason(kind, location, fault, known)}"


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


def _reason(kind: str, location: tuple[Any, ...], fault: Mapping[str, Any], keys: "_Known") -> str:
    """What is wrong, in words of YAML instead of Python's."""
    given, context = fault.get("input"), fault.get("ctx", {})
    if kind == "extra_forbidden":
        known = keys.at(location[:-1])
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


@dataclass(frozen=True, slots=True)
class _Known:
    """The keys that a place in the file may have, found by following the annotations of the models."""

    model: type[BaseModel]
    named: Mapping[str, type[BaseModel]]

    def at(self, location: tuple[Any, ...]) -> list[str]:
        models: list[type[BaseModel]] = [self.model]
        for part in location:
            if part in self.named:
                models = [self.named[part]]
                continue
            fields = [model.model_fields[part] for model in models if part in model.model_fields]
            inner = [found for field in fields for found in _models_in((field.annotation, field.metadata))]
            models = inner or models  # else an index, a key of a mapping, or the name of a union's member
        keys = dict.fromkeys(field.alias or key for model in models for key, field in model.model_fields.items())
        return [key for key in keys if key != "step"]  # the tag of preprocessing steps, which is the key itself


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    parts = annotation if isinstance(annotation, tuple | list) else get_args(annotation)
    return [model for part in parts for model in _models_in(part)]


def line_of(raw: Any, location: Sequence[Any]) -> int:
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

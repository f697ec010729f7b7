"""Records to canonical JSON and back: the same record is always the same bytes, so a digest of them is an identity.

Canonical means sorted keys, UTF-8, no insignificant whitespace, and floats in Python's shortest round-trip form.
NaN and infinity are not JSON. A record must not hold one (it says `Absent` and why), so `encode` refuses it and names
the field, rather than writing a `null` that a reader would take for "not measured".
"""

import json
import math
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from pipeline.errors import EnvironmentFault

T = TypeVar("T")


class DamagedRecord(EnvironmentFault):
    """Stored bytes that are not the record they should be."""

    code = "damaged-record"


def encode(record: object) -> bytes:
    """Canonical JSON of a record. Raises ValueError for a value its type does not allow, or a non-finite number."""
    return canonical(plain(record))


def plain(record: object) -> Any:
    """The record as dicts, lists and scalars, ready for JSON."""
    try:
        value = _adapter(type(record)).dump_python(record, mode="json", warnings="error")
    except PydanticSerializationError as error:
        raise ValueError(f"{type(record).__name__} holds a value of the wrong type: {error}") from error
    _refuse_non_finite(value, type(record).__name__)
    return value


def canonical(value: Any) -> bytes:
    """Canonical JSON of plain values."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode()


def decode(kind: type[T], data: bytes) -> T:
    """The record that `encode` wrote. Unknown keys are ignored, so a newer minor version can still be read."""
    name = getattr(kind, "__name__", str(kind))
    try:
        # pydantic reads NaN and 1e999 although neither is a JSON number; the first pass keeps them out.
        _refuse_non_finite(json.loads(data), name)
        # Strict: a number that was written as text is damage, not something to be guessed right.
        record: T = _adapter(kind).validate_json(data, strict=True)
        return record
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole document"
        raise _damaged(name, f"{where}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(name, str(error)) from error


def schema(kind: Any) -> dict[str, Any]:
    """JSON Schema (2020-12) of what `encode` writes for this kind of record."""
    return _adapter(kind).json_schema(mode="serialization")


def _damaged(name: str, why: str) -> DamagedRecord:
    return DamagedRecord(
        f"damaged {name} record: {why}", hint="delete the stored record and run again; it is recomputed"
    )


def _adapter(kind: Any) -> TypeAdapter[Any]:
    return _cached_adapter(kind)


@cache
def _cached_adapter(kind: Any) -> TypeAdapter[Any]:
    # Building one takes milliseconds, using it microseconds.
    return TypeAdapter(kind)


def _refuse_non_finite(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}, which no record may hold and JSON cannot")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_non_finite(item, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{where}[{index}]")

"""What changed between two releases: pure, manifests in, a list of changes out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import codec
from pipeline.release.records import Manifest
from targets.records import Absent

SECTIONS = ("source", "data", "tools", "recipe", "settings", "quality", "numbers")
_DATA = {"sha256": "samples", "preprocess": "preprocessing", "count": "count", "seed": "seed", "license": "licence"}
_RECIPE = ("recipe", "format", "parameters", "ops_quantized", "ops_left_float", "ops_total", "notes", "blob")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference; None: it is not there. Numbers stay numbers."""

    section: str
    key: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """All that differs. `same_content`: nothing but what devices showed, and the number."""

    same_content: bool
    changes: tuple[Change, ...]


def difference(before: Manifest, after: Manifest) -> Difference:
    """Compare two releases, of one name or of two."""
    old, new = _facts(before), _facts(after)
    changes = [
        Change(section=section, key=key, before=old[section].get(key), after=new[section].get(key))
        for section in SECTIONS
        for key in dict.fromkeys([*old[section], *new[section]])
        if old[section].get(key) != new[section].get(key)
    ]
    return Difference(same_content=before.content == after.content, changes=tuple(changes))


def _facts(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Section → key → value, with nested keys joined by dots."""
    plain = codec.plain(manifest)
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    sections["source"] = dict(plain["source"])
    for role in ("calibration", "test"):
        sections["data"] |= {f"{role} {title}": plain[role][key] for key, title in _DATA.items()}
    sections["tools"] = dict(plain["tools"])
    sections["settings"] = dict(_flat(plain["settings"]))
    sections["settings"] |= {f"budgets as written.{key}": value for key, value in plain["budgets"].items()}
    sections["settings"] |= {key: plain[key] for key in ("name", "license", "summary") if plain[key]}
    for name, model in plain["classes"].items():
        at = "" if name == "default" else f"{name}: "
        sections["recipe"] |= {at + key: value for key, value in _flat({key: model[key] for key in _RECIPE})}
        sections["tools"] |= {f"{at}{key} on the device": value for key, value in model["runtime"].items()}
        sections["numbers"][f"{at}size_bytes"] = model["size_bytes"]
        sections["settings"][f"{at}targets"] = ", ".join(model["targets"])
        quality = model["quality"] or {"metrics": {}, "fidelity": {}}
        sections["quality"] |= {f"{at}{key}": value["value"] for key, value in quality["metrics"].items()}
        sections["quality"] |= {f"{at}{key}": value for key, value in quality["fidelity"].items()}
    sections["numbers"] |= dict(_numbers(manifest))
    return sections


def _numbers(manifest: Manifest) -> Iterator[tuple[str, Any]]:
    for devices in manifest.observed.devices.values():
        for target, seen in devices.items():
            yield f"{target}: latency_p50_ms", seen.warm_ms.median
            yield f"{target}: latency_p90_ms", seen.warm_ms.p90
            yield f"{target}: first_ms", seen.first_ms
            yield f"{target}: load_ms", seen.load_ms
            for key, value in (("peak_memory_bytes", seen.peak_memory_bytes), ("energy_j", seen.energy_j)):
                yield f"{target}: {key}", None if isinstance(value, Absent) else value
            yield f"{target}: answer_steps", seen.answer_steps
            yield f"{target}: hardware", f"{seen.cpu}, {seen.arch}, {seen.os}"


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item

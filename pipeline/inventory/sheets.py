"""What the last probe of each device found, kept for selecting and planning without connecting."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline import codec
from targets.records import Facts

FOLDER = "facts"


def keep_facts(state: Path, facts: Facts) -> Path:
    """Store the sheet under the device's name, whole or not at all."""
    folder = state / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{quote(facts.target, safe='')}.json"
    sheet = {"probed": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(facts)}
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(sheet, indent=1), encoding="utf-8")
    part.replace(path)
    return path


def kept_sheets(state: Path) -> dict[str, Mapping[str, Any]]:
    """Every stored sheet by device name; one that cannot be read counts as never made."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted((state / FOLDER).glob("*.json")):
        try:
            sheet = json.loads(path.read_text(encoding="utf-8"))
            found[str(sheet["target"])] = sheet
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def kept_records(state: Path) -> dict[str, Facts]:
    """The stored sheets as what a probe gives; one of another version counts as never made."""
    found = {}
    for name, sheet in kept_sheets(state).items():
        with suppress(codec.DamagedRecord, ValueError):
            found[name] = codec.decode(Facts, codec.canonical(dict(sheet)))
    return found


def kept_facts(state: Path) -> dict[str, dict[str, str]]:
    """What selectors may ask of the stored sheets: arch, cpu, os, python, and each runtime with its version."""
    return {name: _words(sheet) for name, sheet in kept_sheets(state).items()}


def _words(sheet: Mapping[str, Any]) -> dict[str, str]:
    plain = {"arch": "arch", "cpu": "cpu_model", "os": "os", "python": "python", "kernel": "kernel"}
    words = {word: str(sheet[key]) for word, key in plain.items() if sheet.get(key)}
    runtimes = sheet.get("runtimes")
    return {**words, **({str(k): str(v) for k, v in runtimes.items()} if isinstance(runtimes, dict) else {})}

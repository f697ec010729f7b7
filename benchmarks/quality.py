"""What the example's chosen recipe gains over float32 on this machine, against the tutorial's −66/−42/−37/−1 %.

One fresh run of the shipped example. Value: the chosen recipe. Peer: the float32 model of the same format, measured in
the same run. Bar: the peer less what the tutorial promises. Peak memory is given twice: of the whole process, most of
which is Python and the runtime whatever the model, and what loading and running the model adds to it.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.example import run_example
from benchmarks.pairs import Row, absent, at_least, at_most, main

_MEMORY, _LATENCY, _ENERGY, _QUALITY = 0.66, 0.42, 0.37, 0.01  # shares the tutorial says int8 takes off


def rows(pairs: int) -> Iterator[Row]:
    reports = []
    for _ in range(pairs):
        with tempfile.TemporaryDirectory() as folder:
            run_example(Path(folder))
            reports.append(json.loads((Path(folder) / "out" / "report.json").read_text(encoding="utf-8")))
    for report in reports:
        print(f"  chosen: {report['chosen']}, against {report['baseline']}", file=sys.stderr)
    chosen = [_candidate(report, report["chosen"]) for report in reports]
    baseline = [_candidate(report, report["baseline"]) for report in reports]
    for name, unit, share, quantity in (
        ("memory: model file", "kB", _MEMORY, lambda c: c["size_bytes"] / 1e3),
        ("memory: peak RSS", "MB", _MEMORY, lambda c: _scaled(_target(c)["peak_rss_bytes"], 1e-6)),
        ("memory: peak RSS the model adds", "MB", _MEMORY, lambda c: _added_mb(_target(c))),
        ("latency", "ms", _LATENCY, lambda c: _scaled(_target(c)["warm_ms"], 1)),
        ("energy", "J", _ENERGY, lambda c: _scaled(_target(c)["energy"], 1)),
    ):
        ours, peers = [quantity(c) for c in chosen], [quantity(c) for c in baseline]
        missing = next((found for found in (*ours, *peers) if isinstance(found, str)), None)
        label = f"{name} −{share:.0%}"
        if missing is not None:
            yield absent(label, unit, missing)
            continue
        peer = median(peers)
        yield at_most(label, median(ours), unit, (1 - share) * peer, peer)
    for metric, first in chosen[0]["metrics"].items():
        if first["better"] == "higher":
            peer = median(c["metrics"][metric]["value"] for c in baseline)
            value = median(c["metrics"][metric]["value"] for c in chosen)
            yield at_least(f"quality: {metric} −{_QUALITY:.0%}", value, first["unit"], (1 - _QUALITY) * peer, peer)


def _candidate(report: dict[str, Any], recipe: str | None) -> dict[str, Any]:
    if recipe is None:
        raise RuntimeError(f"the example chose no recipe: {report['reason']}")
    found: dict[str, Any] = next(c for c in report["candidates"] if c["recipe"] == recipe)
    return found


def _target(candidate: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(iter(candidate["targets"].values()))
    return found


def _added_mb(target: dict[str, Any]) -> float | str:
    peak, before = _scaled(target["peak_rss_bytes"], 1e-6), target["conditions"].get("peak_rss_before_load_bytes")
    if isinstance(peak, str) or before is None:
        return peak if isinstance(peak, str) else "the device does not say what it used before loading"
    return peak - float(before) / 1e6


def _scaled(quantity: Any, factor: float) -> float | str:
    """The number (a summary's median), or why there is none."""
    if isinstance(quantity, dict):
        return str(quantity["reason"]) if quantity.get("kind") == "absent" else float(quantity["median"]) * factor
    return float(quantity) * factor


if __name__ == "__main__":
    main(rows, doc=__doc__, pairs=1)

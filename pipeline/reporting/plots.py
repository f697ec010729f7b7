"""The two plots, as plotly figures without colours of their own: `report.js` paints them for light, dark and paper.

This is the only module that imports plotly.
"""

import json
import math
from dataclasses import dataclass

import plotly.graph_objects as go  # type: ignore[import-untyped]
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from pipeline import quantities
from pipeline.records import CandidateReport, Report, SearchReport, Summary
from pipeline.reporting import searching
from pipeline.reporting.comparison import quality_of
from pipeline.search.strategy import loss
from targets.records import Facts

# Beyond this ratio of largest to smallest a linear axis squeezes everything but the largest into one spot.
_LOG_SPREAD = 20.0
# A box needs no more to look the same, and every sample is text in the page.
_SAMPLES_SHOWN = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    id: str
    group: str  # plots of one group share a place in the page; a button each
    label: str
    title: str
    description: str  # for a screen reader
    figure: str  # JSON, safe inside a <script> element


def plotly_js() -> str:
    """plotly's own bundle, about 4.8 MB."""
    return str(get_plotlyjs())


def plots(report: Report) -> tuple[Plot, ...]:
    """Quality against size and each device's latency; what searches tried; the latency distribution of each device."""
    devices = [name for name, facts in report.facts.items() if isinstance(facts, Facts)]
    found = [_tradeoff(report, name) for name in devices]
    found.append(_tradeoff(report, ""))
    found += [_mixes(search) for search in report.searches]
    found += [_distribution(report, name) for name in devices]
    return tuple(plot for plot in found if plot is not None)


def script_json(value: object) -> str:
    """JSON that cannot end the <script> element it stands in, whatever its strings say."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _tradeoff(report: Report, target: str) -> Plot | None:
    """One trace per candidate. With a target x is its latency in ms, without one the file size in kB."""
    key = quality_of(report)
    points = [
        (candidate, x, y)
        for candidate in report.candidates
        if (x := _latency(candidate, target) if target else candidate.size_bytes / 1000)
        and (y := _quality(candidate, key)) is not None
    ]
    if len(points) < 2:
        return None
    unit = "ms" if target else "kB"
    x_title = _axis(report, target) if target else "file size (kB)"
    figure = go.Figure(
        [
            go.Scatter(
                x=[x],
                y=[y],
                mode="markers",
                name=candidate.recipe,
                # Read by report.js, which gives each role its colour, shape and size.
                meta={"role": _role(report, candidate, target)},
                hovertemplate=f"%{{fullData.name}}<br>%{{x:.4~g}} {unit}, %{{y:.2f}}<extra></extra>",
            )
            for candidate, x, y in points
        ]
    )
    figure.update_xaxes(title_text=x_title, **_scale([x for _, x, _ in points]))
    figure.update_yaxes(title_text=_quality_title(report, key))
    reference = _reference(report, key)
    if reference is not None:
        figure.update_layout(meta={"reference": reference, "referenceName": "float source"})
    title = f"Latency on {target}" if target else "File size"
    return Plot(
        id=f"tradeoff-{target}",
        group="tradeoff",
        label=title,
        title=f"{_quality_title(report, key)} against {x_title}",
        description="; ".join(f"{c.recipe}: {quantities.number(x)}, {quantities.number(y, 4)}" for c, x, y in points),
        figure=_json(figure),
    )


def _mixes(search: SearchReport) -> Plot | None:
    """One trace per mix that a search tried: what it costs against what it loses of what it may."""
    by_size = search.cost == "size"
    points = [
        (trial, x, loss(trial))
        for trial in search.trials
        if trial.verdict != "refused" and (x := trial.size_bytes / 1000 if by_size else trial.latency_ms)
    ]
    if len(points) < 2:
        return None
    unit = "kB" if by_size else "ms"
    figure = go.Figure(
        [
            go.Scatter(
                x=[x],
                y=[y],
                mode="markers",
                name=trial.name,
                meta={"role": searching.role(search, trial)},
                hovertemplate=f"%{{fullData.name}}<br>%{{x:.4~g}} {unit}, %{{y:.2f}}<extra></extra>",
            )
            for trial, x, y in points
        ]
    )
    figure.update_xaxes(title_text=f"{search.cost} ({unit})", **_scale([x for _, x, _ in points]))
    figure.update_yaxes(title_text="loss, as a share of what is allowed")
    figure.update_layout(meta={"reference": 1.0, "referenceName": "allowed"})
    return Plot(
        id=f"search-{search.recipe}",
        group="search",
        label=search.recipe,
        title=f"Loss against {search.cost}",
        description="; ".join(f"{t.name}: {quantities.number(x)}, {quantities.number(y, 4)}" for t, x, y in points),
        figure=_json(figure),
    )


def _distribution(report: Report, target: str) -> Plot | None:
    shown = [c for c in report.candidates if target in c.targets and c.targets[target].warm_samples_ms]
    if not shown:
        return None
    samples = {c.recipe: _thinned(c.targets[target].warm_samples_ms) for c in shown}
    figure = go.Figure(
        [
            go.Box(
                x=samples[candidate.recipe],
                name=candidate.recipe,
                orientation="h",
                boxpoints="outliers",
                meta={"role": _role(report, candidate, target)},
                hoverinfo="x",
            )
            # plotly stacks upwards; the table's first row belongs on top.
            for candidate in reversed(shown)
        ]
    )
    figure.update_xaxes(title_text=_axis(report, target), **_scale([x for every in samples.values() for x in every]))
    return Plot(
        id=f"distribution-{target}",
        group="distribution",
        label=target,
        title=_axis(report, target),
        description="; ".join(f"{c.recipe}: {len(c.targets[target].warm_samples_ms)} samples" for c in shown),
        figure=_json(figure),
    )


def _latency(candidate: CandidateReport, target: str) -> float | None:
    result = candidate.targets.get(target)
    return result.warm_ms.median if result and isinstance(result.warm_ms, Summary) else None


def _quality(candidate: CandidateReport, key: str) -> float | None:
    if key == "sqnr":
        return candidate.fidelity.get("sqnr_db")
    metric = candidate.metrics.get(key.removeprefix("metric:"))
    return metric.value if metric else None


def _reference(report: Report, key: str) -> float | None:
    name = key.removeprefix("metric:")
    return next((c.metrics[name].reference for c in report.candidates if name in c.metrics), None)


def _quality_title(report: Report, key: str) -> str:
    if key == "sqnr":
        return "SQNR against float (dB)"
    name = key.removeprefix("metric:")
    metric = next(c.metrics[name] for c in report.candidates if name in c.metrics)
    return f"{name} ({metric.unit})" if metric.unit else name


def _axis(report: Report, target: str) -> str:
    facts = report.facts.get(target)
    emulated = ", emulated device" if isinstance(facts, Facts) and facts.emulated else ""
    return f"latency on {target} (ms{emulated})"


def _role(report: Report, candidate: CandidateReport, target: str) -> str:
    result = candidate.targets.get(target)
    chosen = report.chosen_by_target.get(target, report.chosen) if target else report.chosen
    if candidate.recipe == chosen:
        return "chosen"
    if (result.verdict if result else candidate.verdict) != "pass":
        return "fail"
    return "baseline" if candidate.recipe == report.baseline else "pass"


def _scale(values: list[float]) -> dict[str, object]:
    low, high = min(values), max(values)
    if low <= 0 or high / low <= _LOG_SPREAD:
        return {"rangemode": "tozero"}
    # A little air, so that no marker or box stands on the frame.
    return {"type": "log", "range": [math.log10(low) - 0.15, math.log10(high) + 0.15]}


def _thinned(samples: tuple[float, ...]) -> list[float]:
    """Evenly spaced order statistics, both extremes among them."""
    ordered = sorted(samples)
    if len(ordered) > _SAMPLES_SHOWN:
        step = (len(ordered) - 1) / (_SAMPLES_SHOWN - 1)
        ordered = [ordered[round(i * step)] for i in range(_SAMPLES_SHOWN)]
    return [float(f"{value:.5g}") for value in ordered]


def _json(figure: go.Figure) -> str:
    figure.update_layout(template="none")
    return script_json(figure.to_plotly_json())

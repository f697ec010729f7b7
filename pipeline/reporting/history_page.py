"""One number over time as a page that opens offline, with its intervals where it has some."""

from collections.abc import Sequence

import plotly.graph_objects as go  # type: ignore[import-untyped]
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from pipeline.release.series import Point

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>:root { color-scheme: light dark } body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto;
max-width: 60rem; padding: 0 1rem } figure { margin: 1rem 0; background: #fff; border-radius: .4rem }</style>
<script>{{ plotly_js }}</script>
<h2>{{ title }}</h2>
<figure>{{ figure }}</figure>
<p>Points of different days are no comparison: rooms, loads and clocks differ. `deploy compare A B` measures two
models in turns on the same device and decides.</p>
</html>
"""


def page(points: Sequence[Point], title: str, unit: str) -> str:
    """The HTML of a series: one line for each recipe and for runs and sessions apart; an open mark is doubted."""
    figure = go.Figure()
    for recipe, source in dict.fromkeys((point.recipe, point.source) for point in points):
        own = [p for p in points if (p.recipe, p.source) == (recipe, source)]
        values = [(point, point.value) for point in own if point.value is not None]
        spans = [(value, *(point.interval or (value, value))) for point, value in values]
        figure.add_trace(
            go.Scatter(
                x=[point.date for point, _ in values],
                y=[value for _, value in values],
                name=f"{recipe or 'nothing chosen'}, {'measured' if source == 'session' else 'run'}",
                text=[", ".join(point.doubts) for point, _ in values],
                mode="lines+markers",
                marker={"symbol": ["circle-open" if point.doubts else "circle" for point, _ in values], "size": 9},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [high - value for value, _, high in spans],
                    "arrayminus": [value - low for value, low, _ in spans],
                },
            )
        )
    figure.update_layout(yaxis_title=unit, xaxis_title="UTC", yaxis_rangemode="tozero", template="plotly_white")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    shown = Markup(figure.to_html(full_html=False, include_plotlyjs=False))  # plotly escapes what it is given
    return environment.from_string(_PAGE).render(title=title, figure=shown, plotly_js=Markup(get_plotlyjs()))

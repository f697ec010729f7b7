"""Sessions of measuring as one page that opens offline: every number, every doubt, and the curve over time."""

from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from pipeline.measuring.profile import explained, kinds, reasons, untold
from pipeline.measuring.records import Session
from pipeline.reporting.measuring import doubts, rows, summary
from pipeline.reporting.printable import printable
from targets.records import Profile

_OPS = 20  # types of ops; the rest take next to nothing

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
  :root { color-scheme: light dark }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
  th { text-align: left; font-weight: 500; padding-right: 1.5rem; vertical-align: top; white-space: nowrap }
  .doubt { border-left: .3rem solid #c60; padding-left: .8rem; margin: .6rem 0 }
  .good { border-left: .3rem solid #2a7; padding-left: .8rem }
  figure { margin: 1rem 0; background: #fff; border-radius: .4rem }
</style>
<script>{{ plotly_js }}</script>
{% for session in sessions %}
<h2>{{ session.summary }}</h2>
{% for model in session.models %}
<h3>{{ model.name }}</h3>
<table>{% for label, text in model.rows %}<tr><th>{{ label }}</th><td>{{ text }}</td></tr>{% endfor %}</table>
{% endfor %}
{% for profile in session.profiles %}
<h3>{{ profile.title }}</h3>
<table>{% for line in profile.lines %}<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</table>
{% for reason in profile.reasons %}<p>{{ reason }}</p>{% endfor %}
{% endfor %}
{% for sentence in session.explained %}<p><b>{{ sentence }}</b></p>{% endfor %}
<figure>{{ session.curve }}</figure>
{% for what, remedy in session.doubts %}<p class="doubt"><b>{{ what }}</b><br>{{ remedy }}</p>{% endfor %}
{% if session.trusted %}<p class="good">Nothing speaks against these numbers.</p>{% endif %}
{% endfor %}
</html>
"""


def page(sessions: list[Session]) -> str:
    """The HTML of these sessions."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    shown = [
        {
            "summary": printable(summary(session)),
            "models": [
                {"name": name, "rows": [(a, printable(b)) for a, b in rows(session, label)]}
                for label, name in sorted(session.models.items())
            ],
            "profiles": [_profile(model, found) for model, found in session.profiles.items()],
            "explained": [printable(sentence) for sentence in explained(session.profiles)],
            "curve": Markup(curve(session)),  # plotly escapes what it is given
            "doubts": doubts(session),
            "trusted": session.trusted,
        }
        for session in sessions
    ]
    title = ", ".join(dict.fromkeys(session.target for session in sessions))
    return environment.from_string(_PAGE).render(sessions=shown, title=title, plotly_js=Markup(get_plotlyjs()))


def _profile(model: str, found: Profile) -> dict[str, Any]:
    """One model's ops as table rows, those that take longest first."""
    shown = kinds(found)
    total = sum(kind.us for kind in shown)
    title = f"Where the time of {model} goes, over {found.runs} runs" if total else f"{model}: {untold(found)}"
    lines = [
        (
            printable(kind.op),
            kind.dtype,
            kind.where,
            f"{kind.count} ×",
            *((f"{kind.us / 1000:.3f} ms", f"{kind.us / total:.0%}") if total else ()),
        )
        for kind in shown[:_OPS]
    ]
    return {"title": printable(title), "lines": lines, "reasons": [printable(said) for said in reasons(found)]}


def curve(session: Session) -> str:
    """The median of each process over time, with the middle 80 % of its samples, and the temperature if known."""
    figure = go.Figure()
    for label, name in sorted(session.models.items()):
        blocks = session.of(label)
        samples = [np.array(block.measurement.warm_ns) / 1e6 for block in blocks]
        medians = [float(np.median(own)) for own in samples]
        figure.add_trace(
            go.Scatter(
                x=[round(block.start_s, 2) for block in blocks],
                y=medians,
                name=name,
                mode="lines+markers",
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [float(np.quantile(own, 0.9)) - m for own, m in zip(samples, medians, strict=True)],
                    "arrayminus": [m - float(np.quantile(own, 0.1)) for own, m in zip(samples, medians, strict=True)],
                },
            )
        )
    heat = [(block.start_s, block.measurement.conditions.get("temperature_c_after", "")) for block in session.blocks]
    if all(text for _, text in heat) and heat:
        figure.add_trace(
            go.Scatter(
                x=[round(at, 2) for at, _ in heat],
                y=[float(text) for _, text in heat],
                name="temperature",
                yaxis="y2",
                line={"dash": "dot"},
            )
        )
    figure.update_layout(
        template="plotly_white",
        height=360,
        margin={"l": 60, "r": 60, "t": 20, "b": 50},
        xaxis_title="seconds since the session began",
        yaxis={"title": "latency, ms", "rangemode": "tozero"},
        yaxis2={"title": "°C", "overlaying": "y", "side": "right", "showgrid": False},
        legend={"orientation": "h"},
    )
    return str(figure.to_html(full_html=False, include_plotlyjs=False))

"""`report.json` and the JSON Schema that describes it: the `Report` record, plus each metric's computed `drop`."""

from typing import Any

from pipeline import codec
from pipeline.records import Report


def report_json(report: Report) -> bytes:
    """Canonical JSON. `codec.decode(Report, …)` reads it back; it ignores `drop`, which follows from the rest."""
    document = codec.plain(report)
    for candidate, written in zip(report.candidates, document["candidates"], strict=True):
        for name, metric in candidate.metrics.items():
            written["metrics"][name]["drop"] = metric.drop
    return codec.canonical(document) + b"\n"


def report_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of `report.json`."""
    schema = codec.schema(Report)
    metric = schema["$defs"]["MetricValue"]
    metric["properties"]["drop"] = {
        "type": "number",
        "title": "Drop",
        "description": "How much worse than the float source, in the metric's unit; negative when better.",
    }
    metric["required"] = [*metric["required"], "drop"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}

"""How close answers are to the float source's, how good they are at the task, and how sure that is."""

from .fidelity import Fidelity
from .metrics import BuiltinMetric, Metric, Metrics, MetricScore, MetricSpec, UserMetric, compare, open_metrics
from .statistics import PairedDrop, intervals_overlap, paired_drop, summarize

__all__ = [
    "BuiltinMetric",
    "Fidelity",
    "Metric",
    "MetricScore",
    "MetricSpec",
    "Metrics",
    "PairedDrop",
    "UserMetric",
    "compare",
    "intervals_overlap",
    "open_metrics",
    "paired_drop",
    "summarize",
]

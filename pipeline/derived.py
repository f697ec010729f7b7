"""What is derived from the evidence of a measurement; frozen data, no behaviour."""

from dataclasses import dataclass

from targets.records import Absent


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Energy per inference: medians over windows. Each `_error_j` is half of a 95 % interval."""

    meter: str
    scope: str  # what it includes
    gross_j: float  # all that was drawn during inference, as MLPerf Tiny reports it
    gross_error_j: float
    net_j: float | Absent  # what inference added to idling
    net_error_j: float
    busy_w: float
    idle_w: float
    windows: int
    window_s: float  # the shortest
    inferences: int
    samples: int  # of the meter, inside the windows
    missing_samples: int
    doubts: tuple[str, ...]  # why a gate may not decide by it

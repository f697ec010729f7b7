"""What training will take of this host's memory, and how many samples at once fit into a budget."""

from dataclasses import dataclass

# Each tensor is kept for the gradients, and some have one while they are computed. Measured at 224 x 224 with 1, 2 and
# 4 samples: 1.8 (MobileNetV2 in Keras) and 1.2 (EfficientNet-Lite0 in PyTorch).
_TIMES_THE_TENSORS = 2.0
# A weight, its quantized form, gradient, two moments of Adam, and the states kept: now, best, and as it is written.
_TIMES_THE_WEIGHTS = 12
# The framework's own and its workspace; TensorFlow needs most of it to trace and compile, PyTorch a part.
_FRAMEWORK_BYTES = 500_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`part` samples at once; `peak_bytes` is what training adds to the process, or all it has to spare."""

    part: int
    batch: int
    peak_bytes: int
    budget_bytes: int


def plan(*, sample_bytes: int, weight_bytes: int, batch: int, budget_bytes: int) -> Plan:
    """As many samples at once as the budget has room for, at least one.

    Args:
        sample_bytes: of all tensors of one sample.
        weight_bytes: of all trained weights.
        batch: samples of one step; the gradients of its parts are added up, so that parts cost nothing but time.
    """
    fixed = _FRAMEWORK_BYTES + _TIMES_THE_WEIGHTS * weight_bytes
    each = max(1, int(_TIMES_THE_TENSORS * sample_bytes))
    part = max(1, min(batch, (budget_bytes - fixed) // each))
    return Plan(part=part, batch=batch, peak_bytes=fixed + part * each, budget_bytes=budget_bytes)

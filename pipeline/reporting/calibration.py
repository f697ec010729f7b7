"""How the ranges came about, as one sentence."""

from pipeline.quantities import size
from pipeline.records import CalibrationReport


def described(calibrated: CalibrationReport) -> str:
    """Method, samples, and what the coverage curve says, without markup."""
    method = calibrated.method + (f" {calibrated.percentile:g} %" if calibrated.method == "percentile" else "")
    if len(calibrated.chosen_methods) > 1:
        method += f" ({', '.join(f'{name} {count}' for name, count in calibrated.chosen_methods.items())})"
    text = f"{method}, {calibrated.tensors} tensors over {calibrated.samples} samples, seed {calibrated.seed}"
    if calibrated.passes > 1:
        text += f", {calibrated.passes} passes within {size(calibrated.budget_bytes)}"
    curve = [f"{point.samples}: {point.shift:.0%}" for point in calibrated.coverage[:-1]]
    if curve:
        text += f"; with fewer samples ranges differ by {', '.join(curve)}"
    return f"{text}; {calibrated.path}, sha256 of its content"

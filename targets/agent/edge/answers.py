"""The outputs here against the host's."""

from __future__ import annotations

from typing import Any

from .runtimes import pick
from .wire import Json, Refused


def compare(outputs: list[tuple[list[str], Any]], expected: Json) -> tuple[float, bool]:
    """(largest distance in steps, all finite) over every output.

    A step is one raw unit of an integer output. Of a float output it is 1/255 of the range (max - min) of the expected
    values; of a constant output, 1/255 of its magnitude, or 1/255 when it is all zero.
    """
    import numpy as np

    worst, finite = 0.0, True
    for names, got in outputs:
        want = pick(expected, names, len(outputs), "output")
        if want.shape != got.shape:
            raise Refused("input", "output %s is %s here, %s in the expected file" % (names[0], got.shape, want.shape))
        if got.dtype.kind not in "fiub":
            if not np.array_equal(got, want):
                worst = max(worst, 1.0)  # strings have no distance
            continue
        step = 1.0
        far = np.abs(got.astype(np.float64) - want.astype(np.float64))
        if got.dtype.kind == "f":
            finite = finite and bool(np.isfinite(got).all())
            known = want[np.isfinite(want)].astype(np.float64)
            spread = float(known.max() - known.min() or np.abs(known).max() or 1.0) if known.size else 1.0
            step, far = spread / 255, far[np.isfinite(far)]
        worst = max(worst, float(far.max()) / step if far.size else 0.0)
    return worst, finite


def load_arrays(path: str) -> Json:
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}

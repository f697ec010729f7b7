"""`python -m benchmarks.overhead`."""

import sys
import tempfile
from collections.abc import Iterator

import benchmarks.overhead
from benchmarks.pairs import Row, at_most, in_turns, main, middle, wall_s

_RATIO = 1.2


def rows(pairs: int) -> Iterator[Row]:
    found = in_turns({"ours": lambda: _side("pipeline_side"), "bare": lambda: _side("bare_side")}, pairs)
    ours, bare = middle(found["ours"]), middle(found["bare"])
    yield at_most("export and quantize", ours, "s", _RATIO * bare, bare)


def _side(module: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        # As the pipeline's own worker is started: quiet, and on the CPU.
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "1", "CUDA_VISIBLE_DEVICES": "-1"}
        return wall_s([sys.executable, "-m", f"benchmarks.overhead.{module}", folder], **quiet)


if __name__ == "__main__":
    main(rows, doc=benchmarks.overhead.__doc__, pairs=5)

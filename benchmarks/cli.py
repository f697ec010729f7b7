"""`deploy --help`, cold, against an empty `python -c pass`: at most twice that and 60 ms more.

Whole processes from start to exit, in turns. Cold means a new process; the files are in the page cache for both.
"""

import sys
from collections.abc import Iterator

from benchmarks.pairs import Row, at_most, deploy, in_turns, main, middle, wall_s

_SPARE_MS = 60.0  # Python's own start, click and our command table


def rows(pairs: int) -> Iterator[Row]:
    help_text, empty = [*deploy(), "--help"], [sys.executable, "-c", "pass"]
    wall_s(help_text), wall_s(empty)  # the first start ever compiles our modules
    found = in_turns({"help": lambda: wall_s(help_text) * 1000, "empty": lambda: wall_s(empty) * 1000}, pairs)
    ours, python = middle(found["help"]), middle(found["empty"])
    yield at_most("deploy --help", ours, "ms", 2 * python + _SPARE_MS, python)


if __name__ == "__main__":
    main(rows, doc=__doc__, pairs=15)

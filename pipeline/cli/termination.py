"""A controller that is told to end, by systemd say, ends as on Ctrl-C: in order, with its journal written."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Within the block SIGTERM raises KeyboardInterrupt; switches that have begun are finished before it comes out."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are not this thread's business
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

"""How much memory of this host the converters and quantizers will take, said before they start."""

import re
from pathlib import Path

from pipeline.quantities import size

# Measured with a model of 336 MB: preparing an `.onnx` takes 4.9 times its size, half precision 4.8, static int8 3.0 in
# either format, and 0.15 GB for the interpreter and its libraries; TensorFlow, when it is loaded, adds 0.45 GB.
_TIMES_THE_MODEL = 5
_LIBRARIES_BYTES = 600_000_000
_MEMINFO = Path("/proc/meminfo")


def predicted_peak_bytes(model_bytes: int) -> int:
    """Of the worker, over export and quantization of a float model of that size."""
    return _TIMES_THE_MODEL * model_bytes + _LIBRARIES_BYTES


def announced(model_bytes: int, free_bytes: int | None) -> str:
    """The same in words, with a warning where it is more than there is."""
    peak = predicted_peak_bytes(model_bytes)
    text = f"will take about {size(peak)} of memory at most, quantizing included"
    return text if free_bytes is None or peak <= free_bytes else f"{text}; only {size(free_bytes)} is free here"


def free_memory_bytes() -> int | None:
    """What the kernel would give out without swapping; None where it does not say."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None

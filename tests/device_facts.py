"""Facts of a device that a test makes up: a Raspberry Pi 4 unless told otherwise."""

from typing import Any

from targets.records import Absent, Facts


def facts_of(**changes: Any) -> Facts:
    usual: dict[str, Any] = {
        "target": "pi",
        "arch": "aarch64",
        "cpu_model": "Raspberry Pi 4 Model B Rev 1.4 (4x Cortex-A72)",
        "cpu_features": ("asimd",),
        "cpu_count": 4,
        "os": "Debian GNU/Linux 12 (bookworm)",
        "kernel": "6.6.51+rpt-rpi-v8",
        "libc": "glibc 2.36",
        "python": "3.11.2",
        "runtimes": {},
        "governor": "ondemand",
        "free_disk_bytes": 10**10,
        "total_memory_bytes": 4 * 10**9,
        "available_memory_bytes": 3 * 10**9,
        "temperature_c": Absent(reason="no thermal zone"),
        "meters": (),
        "numpy": "2.2.0",
        "page_bytes": 4096,
    }
    return Facts(**{**usual, **changes})

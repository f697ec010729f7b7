"""What the device is and how it is right now: pure parsers over text, and the probes that feed them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Iterable

from .files import first_text, read_text
from .power import sensors
from .wire import Json

EMULATED = "/run/edge-deploy-emulated"  # in one line what is emulated: written by an emulator that looks like hardware

RUNTIMES = {"tflite": ("ai-edge-litert", "tflite-runtime"), "onnx": ("onnxruntime",), "pt": ("torch",)}
MODULES = {
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
    "onnxruntime": "onnxruntime",
    "torch": "torch",
}

# The instruction sets that choose a kernel in XNNPACK, ruy or MLAS. 32-bit and 64-bit ARM name the first differently.
KERNEL_FEATURES = [
    "neon", "vfpv4", "asimd", "fphp", "asimdhp", "asimddp", "asimdfhm", "bf16", "i8mm", "sve", "sve2", "sme",
    "sse2", "ssse3", "sse4_1", "sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni",
    "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16",
]  # fmt: skip

ARM_PARTS = {
    0xB76: "ARM1176", 0xC07: "Cortex-A7", 0xC08: "Cortex-A8", 0xC09: "Cortex-A9", 0xC0F: "Cortex-A15",
    0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72",
    0xD09: "Cortex-A73", 0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76", 0xD0D: "Cortex-A77", 0xD0C: "Neoverse-N1",
    0xD40: "Neoverse-V1", 0xD41: "Cortex-A78", 0xD42: "Cortex-A78AE", 0xD44: "Cortex-X1", 0xD46: "Cortex-A510",
    0xD47: "Cortex-A710", 0xD48: "Cortex-X2", 0xD49: "Neoverse-N2", 0xD4B: "Cortex-A78C", 0xD4D: "Cortex-A715",
    0xD4E: "Cortex-X3", 0xD4F: "Neoverse-V2", 0xD80: "Cortex-A520", 0xD81: "Cortex-A720", 0xD82: "Cortex-X4",
}  # fmt: skip


def parse_cpuinfo(text: str) -> Json:
    """CPU model, kernel-choosing features and logical CPU count from the text of /proc/cpuinfo."""
    count, flags, name, board, cores = 0, set(), "", "", {}  # type: int, set[str], str, str, dict[str, int]
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "processor" and value.isdigit():
            count += 1
        elif key in ("flags", "Features", "isa"):
            flags.update(value.split())
        elif key == "model name":
            name = name or value
        elif key == "Model":
            board = value
        elif key == "CPU part":
            known = re.fullmatch("0x[0-9a-f]+", value)
            core = ARM_PARTS.get(int(value, 16), "ARM part " + value) if known else value
            cores[core] = cores.get(core, 0) + 1
    if cores:
        name = " + ".join("%dx %s" % (number, core) for core, number in cores.items())
    model = "%s (%s)" % (board, name) if board and name else board or name
    return {"model": model, "features": [f for f in KERNEL_FEATURES if f in flags], "count": count}


def parse_os_release(text: str) -> str:
    """PRETTY_NAME of /etc/os-release, without its quotes."""
    found = re.search(r"^PRETTY_NAME=(?:\"([^\"]*)\"|'([^']*)'|(\S*))", text, re.MULTILINE)
    return next((group for group in found.groups() if group), "") if found else ""


def parse_kb(text: str, key: str) -> int | None:
    """Bytes of a `Key:  1234 kB` line of /proc/meminfo or /proc/self/status."""
    found = re.search(r"^%s:\s+(\d+) kB" % re.escape(key), text, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None


def user_arch(machine: str, pointer_bits: int) -> str:
    """The architecture wheels must match: a 64-bit kernel often carries a 32-bit Raspberry Pi OS."""
    if pointer_bits == 32:
        return {"aarch64": "armv7l", "x86_64": "i686"}.get(machine, machine)
    return machine


def temperature_c() -> float | None:
    text = first_text("/sys/class/thermal", "thermal_zone*/temp")
    text = text or first_text("/sys/class/hwmon", "hwmon*/temp1_input")
    return int(text) / 1000 if re.fullmatch(r"-?\d+", text) else None


def saturates_int8(features: list[str]) -> bool:
    """Whether onnxruntime's uint8 x int8 products overflow their 16-bit sums: on x86 without VNNI instructions."""
    return "sse2" in features and not {"avx_vnni", "avx512_vnni"}.intersection(features)


def battery_status() -> str:
    """Of the first battery that says so: charging, discharging, not charging, full."""
    for supply in sorted(Path("/sys/class/power_supply").glob("*")):
        if read_text(str(supply / "type")) == "Battery" and read_text(str(supply / "status")):
            return read_text(str(supply / "status")).lower()
    return ""


def vcgencmd(*words: str) -> str:
    if not shutil.which("vcgencmd"):
        return ""
    try:
        done = subprocess.run(["vcgencmd", *words], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def emulation() -> str:
    """Why latencies here are not those of the hardware it looks like; empty when nothing says so."""
    if told := read_text(EMULATED).partition("\n")[0]:
        return told[:200]
    # qemu-user answers for /proc/self but not for /proc/thread-self, which still names the emulator.
    for link in ("/proc/thread-self/exe", "/proc/self/task/%d/exe" % os.getpid()):
        with contextlib.suppress(OSError):
            if "qemu" in Path(link).readlink().name:
                return "qemu-user: the processor is emulated in software"
    if "dummy-virt" in read_text("/sys/firmware/devicetree/base/compatible"):
        return "QEMU virt machine: not a real board"
    return "QEMU virtual CPU" if "QEMU" in parse_cpuinfo(read_text("/proc/cpuinfo"))["model"] else ""


def find_packages() -> None:
    """Let this interpreter see installed packages; the agent starts without `site`, as that costs time."""
    if sys.flags.no_site and "site" not in sys.modules:
        import site

        site.main()


def distributions(names: Iterable[str]) -> dict[str, str]:
    find_packages()
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def gather_facts(root: Path) -> Json:
    cpu = parse_cpuinfo(read_text("/proc/cpuinfo"))
    meminfo = read_text("/proc/meminfo")
    board = read_text("/sys/firmware/devicetree/base/model")
    if board and board not in cpu["model"]:
        cpu["model"] = "%s (%s)" % (board, cpu["model"]) if cpu["model"] else board
    return {
        "arch": user_arch(platform.machine(), struct.calcsize("P") * 8),
        "cpu_model": cpu["model"] or platform.processor() or "unknown",
        "cpu_features": cpu["features"],
        "cpu_count": os.cpu_count() or cpu["count"] or 1,
        "os": parse_os_release(read_text("/etc/os-release")) or platform.system(),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()).strip() or "unknown",
        "python": platform.python_version(),
        "executable": sys.executable,
        "runtimes": distributions(MODULES),
        "numpy": distributions(["numpy"]).get("numpy", ""),
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "governor": first_text("/sys/devices/system/cpu", "cpu*/cpufreq/scaling_governor") or None,
        "free_disk_bytes": shutil.disk_usage(root).free,
        "total_memory_bytes": parse_kb(meminfo, "MemTotal"),
        "available_memory_bytes": parse_kb(meminfo, "MemAvailable"),
        "temperature_c": temperature_c(),
        "sensors": sensors(),
        "emulated": emulation(),
        "conditions": {"clusters": named} if (named := clusters()) else {},
    }


def clusters(folder: str = "/sys/devices/system/cpu/cpufreq") -> str:
    """The groups of cores that share a clock, as `0-3 4-7`; empty where all do, or nobody knows."""
    found = []
    for policy in Path(folder).glob("policy*"):
        cores = sorted(int(word) for word in read_text(str(policy / "related_cpus")).split() if word.isdigit())
        if cores:
            found.append((cores[0], cores[-1]))
    names = ["%d-%d" % pair if pair[0] < pair[1] else str(pair[0]) for pair in sorted(found)]
    return " ".join(names) if len(names) > 1 else ""


def conditions(moment: str) -> dict[str, str]:
    """What the device looked like just now, keys ending in the moment ("before", "after")."""
    temperature = temperature_c()
    seen = {
        "governor": first_text("/sys/devices/system/cpu", "cpu*/cpufreq/scaling_governor"),
        "cpu_freq_khz": first_text("/sys/devices/system/cpu", "cpu*/cpufreq/scaling_cur_freq"),
        "temperature_c": "" if temperature is None else "%.1f" % temperature,
        "load_1min": "%.2f" % os.getloadavg()[0],
        "throttled": vcgencmd("get_throttled").partition("=")[2],
        "battery_status": battery_status(),
    }
    return {"%s_%s" % (key, moment): value for key, value in seen.items() if value}

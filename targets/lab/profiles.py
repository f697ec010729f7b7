"""What a board looks like to programs: /proc/cpuinfo, /sys and the firmware's command, made from `profiles.toml`.

Believable, and necessary: without a CPU tree in /sys XNNPACK silently declines, with the x86 one the runtimes crash.
"""

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from targets.errors import UsageError

_IMPLEMENTER_ARM = 0x41
_ARCHITECTURE = 0xF  # "defined by the feature registers", as every ARMv8 core says
_CPU = "devices/system/cpu"

Profile = Mapping[str, Any]  # one table of profiles.toml


@cache
def profiles() -> Mapping[str, Profile]:
    return tomllib.loads(Path(__file__).with_name("profiles.toml").read_text(encoding="utf-8"))


def profile(name: str) -> Profile:
    """Raises UsageError for a name that is none."""
    if name not in profiles():
        raise UsageError(f"{name}: no profile of a board", hint=f"there are {', '.join(profiles())}")
    return profiles()[name]


def environment(board: Profile) -> dict[str, str]:
    """What makes qemu-user behave like the board's processor and kernel."""
    return {"QEMU_CPU": board["qemu_cpu"], "QEMU_UNAME": board["kernel"]}


def cores_of(board: Profile) -> list[Profile]:
    """What holds for each core: the board's own keys, those of its cluster, and the `siblings` in that."""
    found: list[Profile] = []
    for cluster in board.get("clusters", [board]):
        siblings = range(len(found), len(found) + cluster["cores"])
        found += [{**board, **cluster, "siblings": siblings}] * len(siblings)
    return found


def cpuinfo(board: Profile) -> str:
    """The text of /proc/cpuinfo."""
    text = ""
    for index, core in enumerate(cores_of(board)):
        name = f"model name\t: {core['model_name']}\n" if "model_name" in core else ""
        text += (
            f"processor\t: {index}\n{name}BogoMIPS\t: {core['bogomips']}\nFeatures\t: {core['features']}\n"
            f"CPU implementer\t: {_IMPLEMENTER_ARM:#04x}\nCPU architecture: {core.get('architecture', 8)}\n"
            f"CPU variant\t: {core['variant']:#x}\nCPU part\t: {core['part']:#05x}\n"
            f"CPU revision\t: {core['core_revision']}\n\n"
        )
    if "hardware" in board:
        text += f"Hardware\t: {board['hardware']}\n"
    if board["revision"]:  # only Raspberry Pi kernels add these
        text += f"Revision\t: {board['revision']}\nSerial\t\t: 10000000deadbeef\nModel\t\t: {board['model']}\n"
    return text


def write_sys(board: Profile, root: Path) -> None:
    """Fill a folder with the part of /sys that runtimes and our agent read."""
    for path, text in _sys_files(board):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="ascii")


def _sys_files(board: Profile) -> Iterator[tuple[str, str]]:
    cores = cores_of(board)
    every = f"0-{len(cores) - 1}\n"
    for name in ("possible", "present", "online"):
        yield f"{_CPU}/{name}", every
    yield f"{_CPU}/offline", "\n"
    yield f"{_CPU}/isolated", "\n"
    yield f"{_CPU}/kernel_max", "255\n"
    for index, core in enumerate(cores):
        for path, value in _core_files(core, index, len(cores)):
            yield f"{_CPU}/cpu{index}/{path}", f"{str(value).rstrip()}\n"
    yield from _thermal_files(board["temperature_mc"])
    tree = "firmware/devicetree/base"
    yield f"{tree}/model", board["model"] + "\0"
    yield f"{tree}/compatible", "".join(part + "\0" for part in board["compatible"])


def _core_files(core: Profile, index: int, count: int) -> Iterator[tuple[str, object]]:
    if core.get("architecture", 8) == 8:  # 32-bit kernels do not show it
        midr = _IMPLEMENTER_ARM << 24 | core["variant"] << 20 | _ARCHITECTURE << 16 | core["part"] << 4
        yield "regs/identification/midr_el1", f"{midr | core['core_revision']:#018x}"
    yield "online", 1
    yield "cpu_capacity", core.get("capacity", 1024)
    every = f"0-{count - 1}"
    topology: dict[str, object] = {
        "core_id": index,
        "physical_package_id": 0,
        "cluster_id": 0,
        "thread_siblings_list": index,
    }
    topology |= {"core_siblings_list": every, "package_cpus_list": every, "core_siblings": f"{2**count - 1:x}"}
    for name, value in topology.items():
        yield f"topology/{name}", value
    for name, value in _frequency_files(core).items():
        yield f"cpufreq/{name}", value
    kinds = {"data": (1, "Data"), "instruction": (1, "Instruction"), "level2": (2, "Unified"), "level3": (3, "Unified")}
    for number, (cache_name, kib) in enumerate(core["caches_kib"].items()):
        level, kind = kinds[cache_name]
        ways, line_bytes = 4, 64
        fields: dict[str, object] = {"level": level, "type": kind, "size": f"{kib}K", "coherency_line_size": line_bytes}
        fields |= {"ways_of_associativity": ways, "number_of_sets": kib * 1024 // ways // line_bytes}
        # Cores with a third level have the second for themselves.
        fields["shared_cpu_list"] = index if level == 1 or (level == 2 and "level3" in core["caches_kib"]) else every
        for name, value in fields.items():
            yield f"cache/index{number}/{name}", value


def _frequency_files(core: Profile) -> dict[str, object]:
    """Cores of a cluster change their frequency together."""
    governors = ["conservative", "ondemand", "userspace", "powersave", "performance", "schedutil"]
    slowest, fastest = core["frequencies_khz"][0], core["frequencies_khz"][-1]
    found = {"scaling_governor": core["governor"], "scaling_driver": "cpufreq-dt"}
    found["scaling_available_governors"] = " ".join(dict.fromkeys([*governors, core["governor"]]))
    found["scaling_available_frequencies"] = " ".join(map(str, core["frequencies_khz"]))
    found |= dict.fromkeys(("affected_cpus", "related_cpus"), " ".join(map(str, core["siblings"])))
    found |= dict.fromkeys(("cpuinfo_min_freq", "scaling_min_freq"), slowest)
    found |= dict.fromkeys(("cpuinfo_max_freq", "scaling_max_freq", "scaling_cur_freq", "cpuinfo_cur_freq"), fastest)
    return found


def _thermal_files(temperature_mc: int) -> Iterator[tuple[str, str]]:
    zone = {"type": "cpu-thermal", "temp": temperature_mc, "mode": "enabled", "policy": "step_wise"}
    zone |= {"trip_point_0_temp": 110000, "trip_point_0_type": "critical"}
    for name, value in zone.items():
        yield f"class/thermal/thermal_zone0/{name}", f"{value}\n"
    yield "class/hwmon/hwmon0/name", "cpu_thermal\n"
    yield "class/hwmon/hwmon0/temp1_input", f"{temperature_mc}\n"

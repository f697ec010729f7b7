"""What an Android device is and how it is right now, as its own commands tell: scripts, and pure parsers of them."""

import re
from collections.abc import Mapping
from typing import Any

from targets.agent.edge.facts import EMULATED, parse_cpuinfo, parse_kb
from targets.devices.shell_power import SENSORS, parse_sensors
from targets.devices.shell_session import architecture, free_bytes

# What sways a measurement. Some of it only some devices have, or let nobody read. A program takes a phone 5 ms and an
# emulated one 50, so the shell itself reads where it can.
CONDITIONS = """
cpu=/sys/devices/system/cpu
echo "== battery"; dumpsys battery
echo "== supply"
for name in capacity status temp; do
  read -r value </sys/class/power_supply/battery/$name && echo "$name $value"
done
echo "== thermal"; dumpsys thermalservice
echo "== zones"
for zone in /sys/class/thermal/thermal_zone*; do
  read -r value <$zone/temp && read -r kind <$zone/type && echo "$value $kind"
done
echo "== screen"; dumpsys power | grep -m 1 mWakefulness=
echo "== governors"; cat $cpu/cpu[0-9]*/cpufreq/scaling_governor
echo "== frequencies"; cat $cpu/cpu[0-9]*/cpufreq/scaling_cur_freq
echo "== clusters"; cat $cpu/cpu[0-9]*/cpufreq/related_cpus
echo "== load"; cat /proc/loadavg
"""
FACTS = f"""
exec 2>/dev/null
echo "== kernel"; uname -m -r
echo "== properties"; getprop
echo "== cpuinfo"; cat /proc/cpuinfo
echo "== meminfo"; cat /proc/meminfo
echo "== disk"; df -kP "$1"
echo "== libc"; ls /system/bin/linker /system/bin/linker64
echo "== sensors"
{SENSORS}
echo "== emulated"; head -n 1 {EMULATED}; readlink /proc/thread-self/exe
{CONDITIONS}
true
"""
QUIET_CONDITIONS = f"exec 2>/dev/null\n{CONDITIONS}\ntrue"

# Numbers of android.os.BatteryManager and android.os.Temperature.
_BATTERY = {"2": "charging", "3": "discharging", "4": "not charging", "5": "full"}
_THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_CPU = "0"


def sections(text: str) -> Mapping[str, str]:
    """The output of the scripts above, by the names after `==`."""
    parts = re.split(r"^== (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def parse_properties(text: str) -> Mapping[str, str]:
    return dict(re.findall(r"^\[([^\]]+)\]: \[(.*)\]$", text, re.MULTILINE))


def parse_temperature_c(found: Mapping[str, str]) -> float | None:
    """The hottest processor temperature: the thermal service's, else that of a thermal zone of a processor."""
    told = re.findall(r"Temperature\{mValue=(-?[\d.]+), mType=(\d+),", found["thermal"].partition("Current temp")[2])
    if hot := [float(value) for value, kind in told if kind == _CPU]:
        return max(hot)
    zones = re.findall(r"^(-?\d+) (.*)$", found["zones"], re.MULTILINE)
    hot = [int(value) / 1000 for value, kind in zones if re.search(r"cpu|soc|big|little|mid", kind, re.IGNORECASE)]
    return max(hot) if hot else None


def parse_conditions(found: Mapping[str, str]) -> dict[str, str]:
    """The sections of CONDITIONS as the agent names such things, and what only phones have."""
    battery = dict(re.findall(r"^\s*([\w ]+): (\S.*)$", found["battery"], re.MULTILINE))
    supply = dict(re.findall(r"^(\w+) (.+)$", found["supply"], re.MULTILINE))
    tenths = battery.get("temperature") or supply.get("temp", "")
    status = re.search(r"Thermal Status: (\d+)", found["thermal"])
    temperature_c = parse_temperature_c(found)
    awake = re.search(r"mWakefulness=(\w+)", found["screen"])
    seen = {
        "governor": " ".join(dict.fromkeys(found["governors"].split())),
        "cpu_freq_khz": " ".join(found["frequencies"].split()),
        "temperature_c": "" if temperature_c is None else f"{temperature_c:.1f}",
        "thermal_status": _THERMAL[min(int(status.group(1)), 6)] if status else "",
        "battery_percent": battery.get("level") or supply.get("capacity", ""),
        "battery_status": _BATTERY.get(battery.get("status", ""), "") or supply.get("status", "").lower(),
        "battery_temperature_c": f"{int(tenths) / 10:.1f}" if re.fullmatch(r"-?\d+", tenths) else "",
        "screen": awake.group(1).lower() if awake else "",
        "load_1min": found["load"].partition(" ")[0].strip(),
    }
    return {key: value for key, value in seen.items() if value}


def parse_clusters(text: str) -> str:
    """The cores that share a clock, such as `0-3 4-5 6-7`; empty where they all do or nobody knows."""
    clusters = dict.fromkeys(line.strip() for line in text.splitlines() if line.strip())
    names = []
    for cluster in clusters:
        cores = [int(core) for core in cluster.split()]
        names.append(f"{cores[0]}-{cores[-1]}" if len(cores) > 1 else str(cores[0]))
    return " ".join(names) if len(names) > 1 else ""


def _mask(cores: str) -> str:
    """`4-7` as taskset and Android's tools write it: f0."""
    first, _, last = cores.partition("-")
    return f"{sum(1 << core for core in range(int(first), int(last or first) + 1)):x}"


def parse_emulated(found: Mapping[str, str], properties: Mapping[str, str], model: str) -> str:
    """Why latencies here are not those of the hardware it looks like; empty when nothing says so."""
    told, *links = found["emulated"].splitlines() or [""]
    if told and not told.startswith("/"):
        return told[:200]
    if any("qemu" in link.rpartition("/")[2] for link in (told, *links)):
        return "qemu-user: the processor is emulated in software"
    if "1" in (properties.get("ro.kernel.qemu"), properties.get("ro.boot.qemu")):
        return "Android emulator: not a real phone"
    return "QEMU virtual CPU" if "QEMU" in model else ""


def parse_facts(text: str) -> dict[str, Any]:
    """The output of FACTS in the agent's words, read by `targets.wire.decode_facts`; `runtimes` is for the runner."""
    found = sections(text)
    properties = parse_properties(found["properties"])
    kernel, machine = found["kernel"].split()  # uname has an order of its own
    cpu = parse_cpuinfo(found["cpuinfo"])
    maker, model = properties.get("ro.product.manufacturer", ""), properties.get("ro.product.model", "")
    chip = " ".join(filter(None, (properties.get("ro.soc.model") or properties.get("ro.board.platform"), cpu["model"])))
    title = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
    release, level = properties.get("ro.build.version.release"), properties.get("ro.build.version.sdk")
    conditions = parse_conditions(found)
    temperature_c = parse_temperature_c(found)
    if clusters := parse_clusters(found["clusters"]):
        conditions["clusters"] = clusters
        conditions["cluster_masks"] = " ".join(map(_mask, clusters.split()))
    if abis := properties.get("ro.product.cpu.abilist") or properties.get("ro.product.cpu.abi"):
        conditions["abis"] = abis
    if level:
        conditions["api_level"] = level
    return {
        "arch": architecture(machine, properties.get("ro.product.cpu.abilist", "")),
        "cpu_model": f"{title} ({chip})" if title and chip else title or chip or "unknown",
        "cpu_features": cpu["features"],
        "cpu_count": cpu["count"] or 1,
        "os": f"Android {release or '?'} (API {level})" if level else "unknown",
        "kernel": kernel,
        "libc": "bionic" if "linker" in found["libc"] else "unknown",
        "python": "",
        "runtimes": {},
        "governor": conditions.get("governor"),
        "free_disk_bytes": free_bytes(found["disk"]),
        "total_memory_bytes": parse_kb(found["meminfo"], "MemTotal"),
        "available_memory_bytes": parse_kb(found["meminfo"], "MemAvailable"),
        "temperature_c": temperature_c,
        "sensors": parse_sensors(found["sensors"]),
        "emulated": parse_emulated(found, properties, cpu["model"]),
        "conditions": conditions,
    }

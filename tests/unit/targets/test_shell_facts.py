"""What phones say of themselves, as they say it, and what is made of it."""

import pytest

from targets.devices.shell_facts import parse_clusters, parse_conditions, parse_emulated, parse_facts
from targets.devices.shell_load import parse_load
from targets.devices.shell_session import architecture, free_bytes
from targets.errors import AgentFailed
from targets.wire import decode_facts

# The forms are those of Android 13: `dumpsys battery`, `dumpsys thermalservice` and `dumpsys power`.
PIXEL = """== kernel
5.10.157-android13-4 aarch64
== properties
[ro.boot.qemu]: []
[ro.build.version.release]: [13]
[ro.build.version.sdk]: [33]
[ro.product.cpu.abilist]: [arm64-v8a,armeabi-v7a,armeabi]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 7]
[ro.soc.model]: [Tensor]
== cpuinfo
processor	: 0
CPU part	: 0xd05
Features	: fp asimd asimddp

processor	: 1
CPU part	: 0xd44
Features	: fp asimd asimddp
== meminfo
MemTotal:        7699024 kB
MemAvailable:    3412344 kB
== disk
/dev/block/dm-41 113063076 38427632 74504372 35% /data/user/0
== libc
/system/bin/linker
/system/bin/linker64
== sensors
@ /sys/class/power_supply/battery/type
Battery
@ /sys/class/power_supply/battery/status
Charging
@ /sys/class/power_supply/battery/current_now
-512000
@ /sys/class/power_supply/battery/voltage_now
4021000
@ /sys/bus/iio/devices/iio:device0/energy_value
t=100
CH0(T=100)[S1M_VDD_AMB], 51899976
CH1(T=100)[S2M_VDD_CPU2], 185487825
== emulated
/apex/com.android.runtime/bin/toybox
== battery
Current Battery Service state:
  AC powered: false
  USB powered: true
  status: 2
  level: 57
  scale: 100
  temperature: 312
  technology: Li-ion
== supply
== thermal
IsStatusOverride: false
ThermalEventListeners:
	callbacks: 1
Thermal Status: 1
Cached temperatures:
	Temperature{mValue=99.9, mType=0, mName=BIG, mStatus=0}
HAL Ready: true
Current temperatures from HAL:
	Temperature{mValue=41.3, mType=0, mName=LITTLE, mStatus=0}
	Temperature{mValue=48.700005, mType=0, mName=BIG, mStatus=0}
	Temperature{mValue=36.2, mType=3, mName=VIRTUAL-SKIN, mStatus=1}
== zones
== screen
  mWakefulness=Dozing
== governors
sched_pixel
sched_pixel
== frequencies
300000
500000
== clusters
0
1
== load
3.21 2.90 2.71 1/2345 9999
"""


def test_facts_of_a_pixel() -> None:
    facts = decode_facts("ph", parse_facts(PIXEL))
    assert (facts.arch, facts.cpu_count, facts.kernel) == ("aarch64", 2, "5.10.157-android13-4")
    assert facts.cpu_model == "Google Pixel 7 (Tensor 1x Cortex-A55 + 1x Cortex-X1)"
    assert facts.cpu_features == ("asimd", "asimddp")
    assert (facts.os, facts.libc, facts.governor) == ("Android 13 (API 33)", "bionic", "sched_pixel")
    assert (facts.free_disk_bytes, facts.total_memory_bytes) == (74504372 * 1024, 7699024 * 1024)
    assert facts.temperature_c == 48.700005  # the hottest processor now, not what was cached
    assert facts.meters == ("odpm", "battery")
    assert "2 rails" in facts.power_sources[0].scope
    assert "is charging" in facts.power_sources[1].refused
    assert facts.emulated == ""
    assert facts.conditions == {
        "governor": "sched_pixel",
        "cpu_freq_khz": "300000 500000",
        "temperature_c": "48.7",
        "thermal_status": "light",
        "battery_percent": "57",
        "battery_status": "charging",
        "battery_temperature_c": "31.2",
        "screen": "dozing",
        "load_1min": "3.21",
        "clusters": "0 1",
        "cluster_masks": "1 2",
        "abis": "arm64-v8a,armeabi-v7a,armeabi",
        "api_level": "33",
    }


def test_a_phone_that_says_nothing_has_no_conditions() -> None:
    names = ("battery", "supply", "thermal", "zones", "screen", "governors", "frequencies", "clusters", "load")
    assert parse_conditions(dict.fromkeys(names, "")) == {}


def test_the_kernels_own_words_stand_in_for_services_that_are_not_there() -> None:
    names = ("battery", "thermal", "screen", "governors", "frequencies", "clusters", "load")
    found = {
        **dict.fromkeys(names, ""),
        "supply": "capacity 80\nstatus Not charging\ntemp -15\n",
        "zones": "29000 battery\n51500 cpu-0-0-usr\n49000 gpuss-0-usr\n",
    }
    assert parse_conditions(found) == {
        "temperature_c": "51.5",
        "battery_percent": "80",
        "battery_status": "not charging",
        "battery_temperature_c": "-1.5",
    }


def test_emulators_are_told() -> None:
    nothing: dict[str, str] = {}
    assert parse_emulated({"emulated": ""}, nothing, "") == ""
    assert "qemu-user" in parse_emulated({"emulated": "/usr/bin/qemu-aarch64-static\n"}, nothing, "")
    assert "Android emulator" in parse_emulated({"emulated": "/system/bin/toybox\n"}, {"ro.kernel.qemu": "1"}, "")
    assert parse_emulated({"emulated": "a lab's words\n/system/bin/toybox\n"}, nothing, "") == "a lab's words"


def test_clusters_are_named_only_where_there_are_several() -> None:
    assert parse_clusters("0 1 2 3\n" * 4 + "4 5\n" * 2 + "7\n") == "0-3 4-5 7"
    assert parse_clusters("0 1 2 3\n" * 4) == ""


def test_a_64_bit_kernel_may_carry_a_32_bit_android() -> None:
    assert architecture("aarch64", "armeabi-v7a,armeabi") == "armv7l"
    assert architecture("x86_64", "") == "x86_64"


def test_a_df_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(AgentFailed, match="df says"):
        free_bytes("df: /data: Permission denied")


def test_the_load_of_others_is_what_the_run_did_not_take() -> None:
    text = (
        "@ 100.00 101.00\ncpu  100 0 50 900 0 0 0 0 0 0\ncpu  250 0 100 950 0 0 0 0 0 0\n"
        "0m0.00s 0m0.00s\n0m1.20s 0m0.10s\n"
    )
    # 2 s of work in 1 s, of which 1.3 s were the program's; 0.08 s may be the kernel's rounding on 8 cores.
    assert parse_load(text, 8) == {"other_cpu_share": "0.620"}
    assert parse_load(text + text, 8) == {"other_cpu_share": "0.620"}
    assert parse_load(text.replace("101.00", "100.05"), 8) == {}, "too short to tell"
    assert parse_load("@ 100.00 101.00\n\n\n0m0.00s 0m0.00s\n0m1.20s 0m0.10s\n", 8) == {}, "/proc/stat is shut"
    assert parse_load("", 8) == {}

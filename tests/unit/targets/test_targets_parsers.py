"""The agent's pure parsers, over texts as real devices give them."""

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.agent import boot
from targets.agent.edge import facts
from targets.agent.pack import FOLDER

CASES = sorted((Path(__file__).parents[2] / "cases" / "targets" / "cpuinfo").glob("*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_cpuinfo(path: Path) -> None:
    case = json.loads(path.read_text())
    assert facts.parse_cpuinfo("\n".join(case["text"])) == case["expected"]


@given(st.text())
def test_no_text_breaks_the_parsers(text: str) -> None:
    assert set(facts.parse_cpuinfo(text)) == {"model", "features", "count"}
    facts.parse_os_release(text)
    facts.parse_kb(text, "MemTotal")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n', "Debian GNU/Linux 12 (bookworm)"),
        ("PRETTY_NAME='Poky 4.0'\n", "Poky 4.0"),
        ("PRETTY_NAME=Buildroot\n", "Buildroot"),
        ("ID=none\n", ""),
        ("", ""),
    ],
)
def test_os_release(text: str, name: str) -> None:
    assert facts.parse_os_release(text) == name


def test_meminfo_and_status_lines() -> None:
    assert facts.parse_kb("MemTotal:        3884340 kB\nMemFree: 1 kB\n", "MemTotal") == 3884340 * 1024
    assert facts.parse_kb("VmPeak:\t 9 kB\nVmHWM:\t    1234 kB\n", "VmHWM") == 1234 * 1024
    assert facts.parse_kb("MemTotal: many", "MemTotal") is None


@pytest.mark.parametrize(
    ("machine", "bits", "arch"),
    [("aarch64", 64, "aarch64"), ("aarch64", 32, "armv7l"), ("x86_64", 64, "x86_64"), ("armv6l", 32, "armv6l")],
)
def test_the_architecture_is_that_of_the_programs(machine: str, bits: int, arch: str) -> None:
    assert facts.user_arch(machine, bits) == arch


PROGRAMS = [*((path, (3, 9)) for path in sorted(FOLDER.glob("*.py"))), (Path(boot.__file__), (3, 4))]


@pytest.mark.parametrize(("path", "version"), PROGRAMS, ids=lambda value: getattr(value, "name", ""))
def test_the_programs_parse_on_the_oldest_python_they_may_meet(path: Path, version: tuple[int, int]) -> None:
    ast.parse(path.read_text(), feature_version=version)


def test_the_agent_imports_the_standard_library_alone() -> None:
    import sys

    body = [node for path in FOLDER.glob("*.py") for node in ast.parse(path.read_text()).body]
    names = {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in body if isinstance(node, ast.ImportFrom) and not node.level}
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("features", "saturates"),
    [
        (["sse2", "avx2"], True),
        (["sse2", "avx2", "avx512f", "avx512bw"], True),
        (["sse2", "avx2", "avx_vnni"], False),
        (["sse2", "avx2", "avx512f", "avx512_vnni"], False),
        (["asimd"], False),
        ([], False),
    ],
)
def test_int8_products_saturate_only_on_x86_without_vnni(features: list[str], saturates: bool) -> None:
    assert facts.saturates_int8(features) is saturates

"""The host's side of a device: decoding, command lines, digests, the table of transports."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.agent.edge.facts import gather_facts
from targets.delivery import digest_hex
from targets.device import connect
from targets.errors import AgentFailed, UsageError
from targets.records import Absent, BenchRequest, TargetSpec
from targets.transports import TRANSPORTS, load_transport
from targets.wire import decode_facts, decode_measurement

REQUEST = BenchRequest(
    blob="sha256:" + "a" * 64,
    format="onnx",
    inputs="b" * 64,
    expected="c" * 64,
    threads=2,
    warm_max_s=1,
    warm_min_samples=3,
    warm_max_samples=9,
)
RESULT: dict[str, Any] = {
    "runtime": "onnxruntime",
    "runtime_version": "1.23.0",
    "delegate": "",
    "load_ns": 5,
    "first_ns": 4,
    "warmup_ns": [3, 3],
    "warm_ns": [2, 2, 2],
    "load_peak_rss_bytes": 100,
    "peak_rss_bytes": None,
    "max_steps": 0.5,
    "finite": True,
    "conditions": {"governor_before": "ondemand"},
}


def test_a_measurement_keeps_raw_samples_and_says_what_is_absent() -> None:
    found = decode_measurement("pi", REQUEST, RESULT)
    assert found.warm_ns == (2, 2, 2) and found.blob == REQUEST.blob and found.threads == 2
    assert found.peak_rss_bytes == Absent(reason="the kernel of pi reports no VmHWM")
    assert isinstance(found.energy, Absent) and "not asked for" in found.energy.reason
    assert found.conditions == {"governor_before": "ondemand"}


@pytest.mark.parametrize("key", sorted(RESULT))
def test_a_measurement_with_something_missing_or_odd_is_refused(key: str) -> None:
    with pytest.raises(AgentFailed, match="out of protocol"):
        decode_measurement("pi", REQUEST, {k: v for k, v in RESULT.items() if k != key})


def test_what_cannot_be_read_on_a_device_is_absent_with_a_reason(tmp_path: Path) -> None:
    wire = {**gather_facts(tmp_path), "governor": None, "temperature_c": None, "total_memory_bytes": None}
    facts = decode_facts("pi", wire)
    assert facts.governor == Absent(reason="no frequency governor is visible on pi")
    assert isinstance(facts.temperature_c, Absent) and isinstance(facts.total_memory_bytes, Absent)
    with pytest.raises(AgentFailed, match="out of protocol"):
        decode_facts("pi", {**wire, "cpu_count": "many"})


def test_a_digest_may_carry_its_kind() -> None:
    assert digest_hex("sha256:" + "a" * 64) == digest_hex("a" * 64) == "a" * 64
    with pytest.raises(ValueError, match="not a SHA-256"):
        digest_hex("a" * 63)


def test_listing_transports_imports_none_of_them() -> None:
    code = "import sys, targets.device; print(sorted({'fabric', 'paramiko', 'numpy', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(TRANSPORTS))
def test_every_transport_in_the_table_loads(name: str) -> None:
    assert load_transport(name).__name__ == TRANSPORTS[name].partition(":")[2]


def test_an_unknown_transport_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no transport is called 'pigeon'") as caught:
        connect(TargetSpec(name="x", transport="pigeon"), state=tmp_path)
    assert "local, ssh" in caught.value.hint


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))), min_size=1))
def test_an_argument_stays_one_argument(words: list[str]) -> None:
    from targets.transports.ssh import command_line

    assert shlex.split(command_line(["printf", *words])) == ["printf", *words]


def test_a_home_relative_program_is_found_by_a_real_shell(tmp_path: Path) -> None:
    from targets.transports.ssh import command_line

    program = tmp_path / "bin $x" / "show"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    program.chmod(0o755)
    line = command_line(["~/bin $x/show", "a b", "$HOME", "'\"`x`\n;"])
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True, env={"HOME": str(tmp_path)})
    assert done.stdout == "a b|$HOME|'\"`x`\n;|"

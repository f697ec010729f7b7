"""int8 ONNX models on an x86 processor without VNNI, whose fast products saturate: exact there too, host and agent."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from int8_models import branching_onnx_bundle
from labs import require_lab

# Run by the emulated processor. `plain` is what onnxruntime answers without our setting.
PROGRAM = """
import json, sys
import numpy as np, onnxruntime
from pathlib import Path
from pipeline.runtimes.runtime import open_model
from targets.agent.edge.child import run_benchmark

model, inputs, expected, answers = sys.argv[1:]
x = dict(np.load(inputs))
plain = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, x)[0]
np.savez(answers, plain=plain, host=open_model("onnx", Path(model)).invoke(x)["y"])
job = {"format": "onnx", "blob": model, "inputs": inputs, "expected": expected, "threads": 1}
timing = {"warm_max_s": 0.01, "warm_min_samples": 1, "warm_max_samples": 1}
print(json.dumps(run_benchmark({**job, **timing}, lambda stage: None)))
"""


def test_int8_is_exact_on_a_processor_without_vnni(tmp_path: Path) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("only x86 processors saturate")
    require_lab("arm64")  # the same package emulates x86
    bundle = branching_onnx_bundle(tmp_path / "model")
    cpuinfo = tmp_path / "cpuinfo"  # the emulator shows this machine's own otherwise
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Haswell\nflags\t\t: sse2 ssse3 sse4_1 sse4_2 avx fma avx2\n")
    script = 'mount --bind "$1" /proc/cpuinfo && shift && exec qemu-x86_64-static -cpu Haswell "$@"'
    arguments = [str(path) for path in (*bundle.files, tmp_path / "answers.npz")]
    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(cpuinfo), sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    expected, answers = np.load(bundle.expected)["y"], np.load(tmp_path / "answers.npz")
    assert np.abs(answers["plain"] - expected).max() > 3 * np.ptp(expected) / 255, "this processor does not saturate"
    assert np.array_equal(answers["host"], expected)
    measured = json.loads(ran.stdout)
    assert measured["max_steps"] == 0
    assert measured["conditions"]["session.x64quantprecision"] == "1"

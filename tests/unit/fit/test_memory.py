"""The estimate of activations: against a plain simulation, and against what real runtimes take."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tiny_models import tflite_chain

from pipeline.fit.describe import describe
from pipeline.fit.memory import peak_bytes

_VALUES = 8
_STEPS = st.lists(
    st.tuples(
        st.lists(st.integers(-1, _VALUES - 1), max_size=3),
        st.lists(st.integers(0, _VALUES - 1), min_size=1, max_size=2),
    ),
    min_size=1,
    max_size=10,
)


@given(
    sizes=st.lists(st.integers(0, 1000), min_size=_VALUES, max_size=_VALUES),
    steps=_STEPS,
    kept=st.sets(st.integers(0, _VALUES - 1)),
)
def test_it_is_the_most_that_live_at_once(
    sizes: list[int], steps: list[tuple[list[int], list[int]]], kept: set[int]
) -> None:
    most = 0
    for place in range(len(steps)):
        alive = set(kept)
        for value in range(_VALUES):
            used = [number for number, (reads, writes) in enumerate(steps) if value in (*reads, *writes)]
            if used and used[0] <= place <= used[-1]:
                alive.add(value)
        most = max(most, sum(sizes[value] for value in alive))
    assert peak_bytes(sizes, steps, kept) == most


# Prints by how much the process grew from before the model was loaded to after it ran.
_GROWTH = """
import re, sys
import numpy as np
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
form, model = sys.argv[1:]
if form == "tflite":
    from ai_edge_litert.interpreter import Interpreter
    before = resident()
    interpreter = Interpreter(model)
    interpreter.allocate_tensors()
    interpreter.invoke()
else:
    import onnxruntime
    given = np.zeros(COUNT, np.float32)
    before = resident()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    kept = session.run(None, {"x": given})
    before -= given.nbytes
print(resident() - before)
"""
_COUNT = 2_000_000  # of floats in a tensor: 8 MB each, beside which what a runtime needs itself is little


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_it_is_about_what_a_runtime_takes(form: str, tmp_path: Path) -> None:
    model = tmp_path / f"chain.{form}"
    if form == "tflite":
        model.write_bytes(tflite_chain(4, (_COUNT,)))
    else:
        value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [_COUNT]) for name in "xy"]
        names = ["x", "a", "b", "c", "y"]
        # Not Add of a value to itself: it may compute in place.
        nodes = [helper.make_node("Softplus", [one], [two]) for one, two in pairwise(names)]
        graph = helper.make_graph(nodes, "chain", value[:1], value[1:])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    estimate = describe(model=model).activation_bytes
    code = _GROWTH.replace("COUNT", str(_COUNT))
    done = subprocess.run([sys.executable, "-c", code, form, model], capture_output=True, text=True, check=True)
    taken = int(done.stdout.splitlines()[-1])
    # XNNPACK computes in place where it can, and nothing here writes to the input's pages.
    assert taken / 2 <= estimate <= 2 * taken
    assert estimate == 4 * 4 * _COUNT  # input, output, and what the middle step reads and writes

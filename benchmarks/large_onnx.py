"""An ONNX model of more than 2 GB, the whole way: does the host stay under 6·S + 600 MB?

Most of its weights are zeros in a file with a hole, so that it is made in no time. `python -m benchmarks.large_onnx`
takes about five minutes on a quiet machine, 8 GB of disk, and up to 14 GB of memory.
"""

import json
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

_WIDTH = 23_000  # squared, in float32: 2.12 GB
_RECIPES = ["onnx-float32", "onnx-float16", "onnx-dynamic-int8"]
_DATA = """
import numpy as np

def _samples(seed):
    random = np.random.default_rng(seed)
    for _ in range(2):
        yield {"x": random.normal(size=8).astype(np.float32)}

def calibrate():
    return _samples(1)

def test():
    return _samples(2)
"""


def write_model(folder: Path) -> int:
    """net.onnx and zeros.bin; how many bytes its weights have."""
    size_bytes = 4 * _WIDTH * _WIDTH
    with (folder / "zeros.bin").open("wb") as file:
        file.truncate(size_bytes)
    zeros = TensorProto(name="zeros", data_type=TensorProto.FLOAT, dims=[_WIDTH, _WIDTH], raw_data=b"")
    set_external_data(zeros, "zeros.bin", 0, size_bytes)
    zeros.ClearField("raw_data")
    zeros.data_location = TensorProto.EXTERNAL
    wide = numpy_helper.from_array(np.random.default_rng(0).normal(size=(8, _WIDTH)).astype(np.float32), "wide")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "wide"], ["h"]),
            helper.make_node("MatMul", ["h", "zeros"], ["z"]),
            helper.make_node("Add", ["h", "z"], ["y"]),
        ],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, _WIDTH])],
        [zeros, wide],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "net.onnx"))
    return size_bytes


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size_bytes = write_model(folder)
        (folder / "data.py").write_text(_DATA)
        config = {
            "source": {"model": "net.onnx"},
            "data": {"calibrate": "data.py:calibrate", "test": "data.py:test"},
            "recipes": _RECIPES,
            "measure": {"warm": "200 ms"},
        }
        (folder / "deploy.yaml").write_text(json.dumps(config))
        command = [sys.executable, "-m", "pipeline.cli.main", "run"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        # The largest of its processes; grandchildren count once they are waited for.
        peak_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        limit_bytes = 6 * size_bytes + 600_000_000
        announced = re.search(r"will take about ([\d.]+ .B) of memory at most", done.stderr)
        print(done.stdout[-3000:] or done.stderr[-3000:])
        print(f"exit code {done.returncode}; model {size_bytes / 1e9:.2f} GB")
        print(f"peak of one process {peak_bytes / 1e9:.2f} GB, announced {announced[1] if announced else 'nothing'}, ")
        verdict = "within" if done.returncode == 0 and peak_bytes <= limit_bytes else "OVER"
        print(f"{verdict} 6·S + 600 MB = {limit_bytes / 1e9:.2f} GB")


if __name__ == "__main__":
    main()

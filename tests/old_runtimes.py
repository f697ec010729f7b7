"""Runtimes of years ago, each in an environment of its own that is made once and kept, and models run there."""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from targets.cache import cache_folder, ensure

Array = np.ndarray[Any, Any]
# The last Python that both have a wheel for, and NumPy as they were built against it.
_PYTHON = "3.11"
REQUIREMENTS = {
    "tflite-runtime": ("tflite-runtime==2.14.0", "numpy==1.26.4"),
    "onnxruntime": ("onnxruntime==1.16.3", "numpy==1.26.4"),
}
VERSIONS = {"tflite-runtime": "2.14.0", "onnxruntime": "1.16.3"}

# Prints one line of JSON: where the outputs are, or what the runtime said.
_RUN = """
import json, sys
import numpy as np
form, model, feed, out = sys.argv[1:]
given = dict(np.load(feed))
try:
    if form == "onnx":
        import onnxruntime
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]
        found = dict(zip(names, session.run(names, given)))
    else:
        from tflite_runtime.interpreter import Interpreter
        runner = Interpreter(model).get_signature_runner()
        found = runner(**given)
except Exception as fault:
    print(json.dumps({"refused": str(fault)}))
else:
    np.savez(out, **found)
    print(json.dumps({}))
"""


class RefusedThere(Exception):
    """The old runtime does not load or run the model."""


def old_python(runtime: str) -> str:
    """The interpreter of an environment with the old release; skips where it cannot be made, fails in CI."""
    base = sys.executable if sys.version.startswith(f"{_PYTHON}.") else shutil.which(f"python{_PYTHON}")
    if base is None:
        return _missing(f"Python {_PYTHON}, the last that {runtime} {VERSIONS[runtime]} has a wheel for")

    def build(folder: Path) -> None:
        if base == sys.executable:
            venv.create(folder, symlinks=True)
        else:
            subprocess.run([base, "-m", "venv", "--without-pip", folder], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "-q"]
        subprocess.run([*pip, *REQUIREMENTS[runtime]], check=True, capture_output=True, text=True)

    try:
        made = ensure(cache_folder("fit") / f"{runtime}-{VERSIONS[runtime]}", build)
    except subprocess.CalledProcessError as error:
        return _missing(f"{runtime} {VERSIONS[runtime]}: {error.stderr}")
    return str(made / "bin" / "python")


def run_there(runtime: str, model: Path, feed: Mapping[str, Array]) -> dict[str, Array]:
    """The model's outputs in the old runtime. Raises RefusedThere."""
    given, out = model.with_suffix(".feed.npz"), model.with_suffix(".out.npz")
    np.savez(given, **feed)
    done = subprocess.run(
        [old_python(runtime), "-W", "ignore", "-c", _RUN, model.suffix[1:], model, given, out],
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    if "refused" in answer:
        raise RefusedThere(answer["refused"])
    with np.load(out) as found:
        return dict(found)


def _missing(what: str) -> str:
    if os.environ.get("CI"):
        pytest.fail(f"missing: {what}")
    pytest.skip(f"missing: {what}")

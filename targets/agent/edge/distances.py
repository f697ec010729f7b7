"""How far each output of a model is from the host's, once: for models with inner tensors as outputs."""

from __future__ import annotations

from typing import Any, Callable

from .answers import compare, load_arrays
from .runtimes import OnnxModel, TfliteModel, import_runtime
from .wire import Json


def distances(job: Json, stage: Callable[[str], None]) -> Json:
    stage("importing the runtime")
    distribution, version, module = import_runtime(job["format"])
    model: Any = OnnxModel(module) if job["format"] == "onnx" else TfliteModel(module)
    stage("loading the model")
    model.load(job["blob"], job["threads"], load_arrays(job["inputs"]))
    stage("the one inference")
    model.reset()
    model.run()
    stage("comparing outputs")
    expected = load_arrays(job["expected"])
    found = []
    for number, (_, array) in enumerate(model.outputs()):  # by place: a model's inner names need not be unique
        steps, finite = compare([(["#%d" % number], array)], {"#%d" % number: expected["output%d" % number]})
        found.append({"steps": steps, "finite": finite})
    return {
        "runtime": distribution, "runtime_version": version, "delegate": "", "delegated": model.delegated(),
        "outputs": found,
    }  # fmt: skip

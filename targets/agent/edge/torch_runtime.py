"""A TorchScript model in PyTorch, and the engine that its quantized layers run on."""

from __future__ import annotations

import json
import zipfile
from typing import Any

from .runtimes import cast, pick
from .wire import Json, Refused

# On a CPU that has not the engine a model was made for: qnnpack is all that ARM builds have.
ENGINES = ("qnnpack", "x86", "fbgemm")


def signature_of(path: str) -> Json:
    """Names, shapes and data types of the model's tensors, and its engine; read without PyTorch."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/extra/signature.json"))
            found: Json = json.loads(archive.read(name))
            return found
    except (zipfile.BadZipFile, StopIteration, ValueError) as fault:
        raise Refused("agent", "%s is no TorchScript file with a signature: %r" % (path, fault)) from None


def choose_engine(torch: Any, path: str) -> str:
    """Set the engine before the model is loaded, for that packs the weights; "" when nothing is quantized."""
    asked = signature_of(path)["engine"]
    if not asked:
        return ""
    quantized = torch.backends.quantized
    there = list(quantized.supported_engines)
    engine = next((name for name in (asked, *ENGINES) if name in there), None)
    if engine is None:
        raise Refused("no-runtime", "this PyTorch has no engine for quantized layers (%s); it has %s" % (asked, there))
    quantized.engine = engine
    return str(engine)


class TorchModel:
    """A .pt model of ours in PyTorch."""

    def __init__(self, module: Any) -> None:
        self.torch = module

    def load(self, path: str, threads: int, sample: Json) -> None:
        import numpy as np

        torch = self.torch
        torch.set_num_threads(threads)
        self.conditions = {"quantized_engine": engine} if (engine := choose_engine(torch, path)) else {}
        self.model = torch.jit.load(path, map_location="cpu")
        inputs = signature_of(path)["inputs"]
        feed = {}
        for one in inputs:
            array = pick(sample, [one["name"]], len(inputs), "input")
            feed[one["name"]] = torch.from_numpy(cast(array, np.dtype(one["dtype"]), one["name"]))
        self.values: Json = {}
        model, no_grad = self.model, torch.no_grad

        def run() -> None:
            with no_grad():
                self.values = model(**feed)

        self.run = run

    def reset(self) -> None:
        pass  # state goes in and out by name, if there is any

    def outputs(self) -> list[tuple[list[str], Any]]:
        return [([name], value.numpy()) for name, value in self.values.items()]

    def delegated(self) -> bool:
        return False

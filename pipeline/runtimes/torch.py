"""`.pt` files (TorchScript) on PyTorch's CPU runtime."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import ConversionFailed
from pipeline.exporters.torch_program import read_torchscript, specs
from pipeline.runtimes.runtime import Array, HostModel
from targets.agent.edge.torch_runtime import choose_engine


class TorchModel(HostModel):
    """A `.pt` file as `pipeline.exporters.torch_program` writes it, with the engine it was made for."""

    def __init__(self, path: Path, *, threads: int = 2) -> None:
        torch.set_num_threads(threads)
        try:
            choose_engine(torch, str(path))
            self._module, signature = read_torchscript(path)
        except RuntimeError as error:
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ConversionFailed(
                f"{path.name}: torch {torch.__version__} does not load it: {first}", hint="the conversion is at fault"
            ) from None
        self.inputs, self.outputs = specs(signature["inputs"]), specs(signature["outputs"])

    def invoke(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        given = {spec.name: torch.from_numpy(np.array(inputs[spec.name])) for spec in self.inputs}
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # qnnpack, that it has 8 bits where x86 has 7
            answers = self._module(**given)
        return {spec.name: answers[spec.name].numpy() for spec in self.outputs}


def ops_of(path: Path) -> list[tuple[str, bool]]:
    """Every op of a `.pt` that makes a tensor, in the order they run, and whether it has int8 weights."""
    choose_engine(torch, str(path))
    module, _ = read_torchscript(path)
    found = []
    for node in module.inlined_graph.nodes():
        namespace, _, name = node.kind().partition("::")
        makes_tensor = any(isinstance(output.type(), torch.TensorType) for output in node.outputs())
        if namespace in ("aten", "quantized") and makes_tensor:
            found.append((name, "quantized" in node.kind()))
    return found

"""The saved torch.export program of a source, and the `.pt` files that the torch runtime runs.

A `.pt` is TorchScript, traced from the program: torch.export cannot hold the packed weights of quantized layers
("LinearPackedParamsBase … does not have a field with name '__obj_flatten__'", torch 2.13). It is loaded without the
user's code, and carries `signature.json`: names, shapes and data types of its tensors, and the engine it was made for.
"""

import io
import json
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import ConversionFailed
from pipeline.exporters.torch_names import tensor_spec
from targets.records import TensorSpec

SIGNATURE = "signature.json"
_NUMBER = re.compile(rb"___torch_mangle_\d+")


def read_program(path: Path) -> torch.export.ExportedProgram:
    """What `TorchSource.save` wrote."""
    return torch.export.load(path)


def refuse_free(program: torch.export.ExportedProgram, why: str) -> None:
    """Raise ConversionFailed when the program has dimensions that are free."""
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    free = {
        node.target: [size if isinstance(size, int) else -1 for size in node.meta["val"].shape]
        for node in inputs
        if not all(isinstance(size, int) for size in node.meta["val"].shape)
    }
    if free:
        said = ", ".join(f"{name} {shape}" for name, shape in free.items())
        raise ConversionFailed(
            f"not available with free dimensions ({said}): {why}",
            hint="give a size for each in source.inputs, or use the onnx recipes",
        )


def examples(program: torch.export.ExportedProgram) -> dict[str, torch.Tensor]:
    """The inputs it was traced with, by name."""
    given = program.example_inputs
    assert given is not None, "a source's program keeps its example inputs"
    return dict(given[1])


def write_torchscript(
    module: torch.nn.Module, given: Mapping[str, torch.Tensor], path: Path, *, engine: str = ""
) -> None:
    """Trace the module over the inputs, freeze it (weights that nothing uses go) and write it with its signature."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tracing is deprecated, and that sizes become constants: they are fixed
        answers = module(**given)
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            module, example_kwarg_inputs=dict(given), check_trace=False, strict=False
        )
        frozen = torch.jit.freeze(traced.eval())
        written = io.BytesIO()  # into a file, the archive would carry that file's name
        signature = {
            "inputs": [_described(tensor_spec(name, tensor)) for name, tensor in given.items()],
            "outputs": [_described(tensor_spec(name, tensor)) for name, tensor in answers.items()],
            "engine": engine,
        }
        torch.jit.save(frozen, written, _extra_files={SIGNATURE: json.dumps(signature)})
    path.write_bytes(_settled(written.getvalue()))


def _settled(archive: bytes) -> bytes:
    """The same TorchScript with nothing in it of the process that wrote it.

    torch numbers its classes through the life of a process and keeps paths and lines of all code that was traced: the
    same model would be another file each time.
    """
    written = io.BytesIO()
    numbers: dict[bytes, int] = {}

    def renumbered(found: re.Match[bytes]) -> bytes:
        return b"___torch_mangle_%d" % numbers.setdefault(found[0], len(numbers))

    with zipfile.ZipFile(io.BytesIO(archive)) as given, zipfile.ZipFile(written, "w") as settled:
        for name in given.namelist():
            if name.endswith((".debug_pkl", "serialization_id")):
                continue
            # Tensors are left alone; a class is named in pickles by a line of its own, without its length.
            content, place = given.read(name), name.encode()
            if name.endswith((".py", ".pkl")):
                content, place = _NUMBER.sub(renumbered, content), _NUMBER.sub(renumbered, place)
            settled.writestr(zipfile.ZipInfo(place.decode()), content)
    return written.getvalue()


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}


def read_torchscript(path: Path) -> tuple[torch.jit.ScriptModule, dict[str, Any]]:
    """The module and its signature; the engine must have been chosen before, it packs the weights."""
    extra = {SIGNATURE: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, see above
        module = torch.jit.load(  # type: ignore[no-untyped-call]
            io.BytesIO(path.read_bytes()), map_location="cpu", _extra_files=extra
        )
    return module, json.loads(extra[SIGNATURE])


def specs(described: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    """One side of a signature."""
    return tuple(TensorSpec(name=one["name"], shape=tuple(one["shape"]), dtype=one["dtype"]) for one in described)

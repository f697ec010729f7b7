"""PyTorch as a source. Its own answers come from the module itself; the exports from its torch.export program."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import InputError
from pipeline.exporters.source import Arrays, Unstated, refuse_bad_weights
from pipeline.exporters.torch_load import load
from pipeline.exporters.torch_names import (
    Declared,
    Named,
    dtype_name,
    input_names,
    named_examples,
    named_outputs,
    tensor_spec,
)
from pipeline.plugins import versions
from targets.records import TensorSpec

_FREE = 2  # of a dimension that nobody gave an example of


class TorchSource:
    """A module of a user's function, of a `.pt2`, or of a factory with its weights.

    PyTorch modules declare no shapes. They come from the program of a `.pt2`, else from `source.inputs`, else from the
    function's example inputs (whose first axis is taken for the batch), else from the first calibration sample.
    """

    def __init__(self, path: Path, *, signature: str = "", scratch: Path, unstated: Unstated) -> None:
        loaded = load(path, factory=unstated.factory, base=unstated.base)
        self._path, self._module = path, loaded.module
        state = self._module.state_dict()
        _refuse_half(path, state)
        refuse_bad_weights(path, ((name, _array(value)) for name, value in state.items()))
        if loaded.program is not None:
            self.inputs = _declared(path, loaded.program)
            self._examples: dict[str, torch.Tensor] = {}
        else:
            if not input_names(self._module):
                raise InputError(
                    f"{path}: its forward has no parameters with names",
                    hint="wrap it in a module with `def forward(self, image)`: the names become the model's inputs",
                )
            self._examples = named_examples(str(path), self._module, loaded.examples)
            self.inputs = self._stated(unstated)
        self.outputs: tuple[TensorSpec, ...] = ()
        self.tools: Mapping[str, str] = versions("torch")

    def fix_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        given = {spec.name: self._example(spec, shapes[spec.name]) for spec in self.inputs}
        answers = self._answer(given)
        try:
            with torch.no_grad():
                self._program = _exported(self._module, given, shapes)
        except Exception as error:  # torch raises its own classes, and those of the user's forward
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise InputError(
                f"{self._path}: torch.export cannot take it: {first[:300]}",
                hint="forward must not branch on values of its tensors: use torch.where or torch.cond, "
                "or give the part without the branch",
            ) from None
        _forget_origins(self._program)
        self.inputs = tuple(
            replace(tensor_spec(name, tensor), shape=tuple(shapes[name])) for name, tensor in given.items()
        )
        self.outputs = tuple(tensor_spec(name, tensor) for name, tensor in answers.items())

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        answers = self._answer({name: torch.from_numpy(np.array(array)) for name, array in inputs.items()})
        return {name: _array(tensor) for name, tensor in answers.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """That images are channels first: on a device they rarely come so."""
        first = [spec for spec in self.inputs if len(spec.shape) == 4 and spec.shape[1] in (1, 3, 4)]
        return tuple(
            f"input {spec.name!r} is {list(spec.shape)}, channels first as in PyTorch: give it so on the device too"
            for spec in first
            if spec.shape[3] > spec.shape[1]
        )

    def save(self, path: Path) -> None:
        written = io.BytesIO()  # into a file, the archive would carry that file's name
        torch.export.save(self._program, written)
        path.write_bytes(written.getvalue())

    def _answer(self, given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        try:
            with torch.no_grad():
                return named_outputs(self._module(**given))
        except Exception as error:  # whatever the user's forward raises
            takes = ", ".join(f"{name} {list(tensor.shape)} {dtype_name(tensor)}" for name, tensor in given.items())
            first = next(iter(str(error).strip().splitlines()), "")
            raise InputError(
                f"{self._path}: its forward raised {type(error).__name__} for {takes}: {first[:300]}",
                hint="PyTorch takes images channels first: `preprocess` ends with `layout: nchw`. "
                "Shapes are stated with `source: {inputs: {NAME: [1, 3, 224, 224]}}` or the function's example inputs",
            ) from None

    def _stated(self, unstated: Unstated) -> tuple[TensorSpec, ...]:
        names = input_names(self._module, {*self._examples, *unstated.shapes})
        sample = {} if set(names) <= set(self._examples) else unstated.first_sample(names)
        batch = next((tensor.shape[:1] for tensor in self._examples.values()), None)
        specs = []
        for name in names:
            if name in self._examples:
                # The batch is the first axis of the first input; a recurrent state has its layers there.
                tensor = self._examples[name]
                free = tensor.ndim > 0 and tensor.shape[:1] == batch
                shape, dtype = (-1, *tensor.shape[1:]) if free else tuple(tensor.shape), dtype_name(tensor)
            else:
                shape, dtype = (1, *sample[name].shape), sample[name].dtype.name
                # NumPy makes float64 unless told otherwise; parameters are float32.
                dtype = "float32" if dtype == "float64" else dtype
            specs.append(TensorSpec(name=name, shape=unstated.shapes.get(name, tuple(shape)), dtype=dtype))
        return tuple(specs)

    def _example(self, spec: TensorSpec, shape: tuple[int, ...]) -> torch.Tensor:
        """A value to trace with: the user's where it has the shape, since not every model takes zeros."""
        example = self._examples.get(spec.name)
        # torch takes a free dimension of 0 or 1 for fixed.
        held = shape if example is None or example.ndim != len(shape) else tuple(example.shape)
        shape = tuple(size if size >= 0 else max(known, _FREE) for size, known in zip(shape, held, strict=True))
        if example is not None and tuple(example.shape) == shape:
            return example.detach().cpu()
        return torch.zeros(shape, dtype=getattr(torch, spec.dtype))


def _exported(
    module: torch.nn.Module, given: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> torch.export.ExportedProgram:
    """The program; dimensions of -1 stay free in it."""
    free = {
        name: {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(shapes[name]) if size < 0} for name in given
    }
    if not any(free.values()):
        return torch.export.export(Named(module).eval(), (), kwargs=dict(given), strict=False)
    declared = Declared(module, list(given)).eval()
    return torch.export.export(declared, (), kwargs=dict(given), strict=False, dynamic_shapes=free)


def _forget_origins(program: torch.export.ExportedProgram) -> None:
    """Leave each node only the name of its layer, of which litert-torch makes the names of tensors.

    What torch notes besides are paths and lines of the user's files. They would travel to the device, and make the
    same model another one on another machine.
    """
    for node in program.graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if stack:
            *_, (place, _) = stack.values()
            layer = place.removeprefix("module").removeprefix(".") or "forward"
            node.meta["nn_module_stack"] = {layer: ("", layer)}
        for noted in ("stack_trace", "source_fn_stack", "from_node"):
            node.meta.pop(noted, None)


def _declared(path: Path, program: torch.export.ExportedProgram) -> tuple[TensorSpec, ...]:
    specs = []
    names = program.graph_signature.user_inputs
    for node in program.graph.nodes:
        if node.op != "placeholder" or node.name not in names:
            continue
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{path}: input {node.name!r} is no tensor", hint="export it with tensors only")
        shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
        specs.append(TensorSpec(name=node.target, shape=shape, dtype=dtype_name(value)))
    return tuple(specs)


def _refuse_half(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    for name, value in state.items():
        if value.dtype in (torch.float16, torch.bfloat16):
            raise InputError(
                f"{path}: weight {name!r} is {dtype_name(value)}: the float model must be float32",
                hint="call .float() on the module; the float16 recipes make half precision again",
            )


def _array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = tensor.detach().cpu().numpy()
    return found

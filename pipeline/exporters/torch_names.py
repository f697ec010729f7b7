"""Names for what PyTorch passes by place: inputs after the parameters of `forward`, outputs after what it returns."""

import inspect
from collections.abc import Container, Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from pipeline.errors import InputError
from targets.records import TensorSpec

ONE_OUTPUT = "output"


class Named(torch.nn.Module):
    """The module with tensors by name on both sides.

    A dict, dataclass or named tuple keeps its own names; a plain tuple gives output_0, output_1 …, and a lone tensor
    `output`.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        return named_outputs(self.module(**tensors))


class Declared(Named):
    """The same with parameters of these names: torch.export wants to be told which dimensions of them are free."""

    def __init__(self, module: torch.nn.Module, names: Sequence[str]) -> None:
        super().__init__(module)

        def forward(*given: torch.Tensor, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
            return Named.forward(self, **dict(zip(names, given, strict=False)), **tensors)

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        declared = inspect.Signature([inspect.Parameter(name, kind) for name in names])
        forward.__signature__ = declared  # type: ignore[attr-defined]
        self.forward = forward  # type: ignore[method-assign]


class Program(torch.nn.Module):
    """The module of a torch.export program, called by names however it was traced."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        """Raises ValueError for a program whose arguments are more than tensors."""
        super().__init__()
        self.module = program.module(check_guards=False)
        self.names = [node.target for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
        given, named = program.call_spec.in_spec.children()
        if given.num_leaves != given.num_children or named.num_leaves != named.num_children:
            raise ValueError("its arguments are lists or dicts of tensors; export a module whose forward takes tensors")
        self.places, self.keywords = given.num_children, list(named.context or ())

    def train(self, mode: bool = True) -> "Program":
        return self  # a program stays as it was traced, and raises when told otherwise

    def forward(self, **tensors: torch.Tensor) -> Any:
        ordered = [tensors[str(name)] for name in self.names]
        return self.module(*ordered[: self.places], **dict(zip(self.keywords, ordered[self.places :], strict=True)))


def named_outputs(answer: Any) -> dict[str, torch.Tensor]:
    """The tensors of an answer by name; what is None or no tensor is left out.

    Raises:
        ValueError: there is none.
    """
    if isinstance(answer, torch.Tensor):
        return {ONE_OUTPUT: answer}
    found = {_name(place): leaf for place, leaf in pytree.tree_flatten_with_path(answer)[0] if torch.is_tensor(leaf)}
    if not found:
        raise ValueError(f"forward returned {type(answer).__name__} with no tensor in it")
    return found


def _name(place: tuple[Any, ...]) -> str:
    parts = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in place]
    name = "_".join(parts)
    return f"output_{name}" if name[:1].isdigit() else name


def input_names(module: torch.nn.Module, known: Container[str] | None = None) -> list[str]:
    """The parameters of `forward` that must be given, and the optional ones among `known` (None: all), in order."""
    parameters = inspect.signature(module.forward).parameters.values()
    return [
        parameter.name
        for parameter in parameters
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and (parameter.default is parameter.empty or known is None or parameter.name in known)
    ]


def named_examples(what: str, module: torch.nn.Module, examples: Any) -> dict[str, torch.Tensor]:
    """Example inputs by name, as the function gave them: one tensor, a tuple in the order of `forward`, or a dict.

    Raises:
        InputError: they do not fit `forward`, or are no tensors.
    """
    if examples is None:
        return {}
    arguments, keywords = ((), examples) if isinstance(examples, Mapping) else (examples, {})
    try:
        bound = inspect.signature(module.forward).bind(
            *(arguments if isinstance(arguments, tuple | list) else (arguments,)), **keywords
        )
    except TypeError as error:
        raise InputError(
            f"{what}: the example inputs do not fit `forward`: {error}",
            hint="give one tensor, a tuple in the order of its parameters, or a dict by their names",
        ) from None
    for name, value in bound.arguments.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(
                f"{what}: the example of input {name!r} is {type(value).__name__}",
                hint="every input must be a tensor of its own: wrap the module in one whose forward takes them apart",
            )
    return dict(bound.arguments)


def tensor_spec(name: str, tensor: torch.Tensor) -> TensorSpec:
    return TensorSpec(name=name, shape=tuple(tensor.shape), dtype=dtype_name(tensor))


def dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

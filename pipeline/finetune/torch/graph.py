"""A torch.export program in functional form: kernels, batch normalizations, and where the runtimes quantize."""

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

# Kernels by operator: the axis of their output channels. Which is all that the exporters make quantizable ops of.
_CHANNEL_AXIS: Mapping[str, int] = {
    "conv1d": 0,
    "conv2d": 0,
    "convolution": 0,
    "conv_transpose1d": 1,
    "conv_transpose2d": 1,
    "linear": 0,
}
_NORMALIZATION = "_native_batch_norm_legit_no_training"
# Ops that move values but make no new ones: what they give is on the grid of what they got. Average pooling is among
# them because the runtimes want one scale on both sides of it.
_SAME_GRID = frozenset({
    "alias", "channel_shuffle", "chunk", "clone", "constant_pad_nd", "contiguous", "detach", "dropout", "expand",
    "feature_dropout", "flatten", "flip", "gather", "getitem", "index", "index_select", "lift_fresh_copy", "movedim",
    "narrow", "pad", "permute", "pixel_shuffle", "pixel_unshuffle", "repeat", "reshape", "roll", "select", "slice",
    "split", "split_with_sizes", "squeeze", "t", "tile", "to", "_to_copy", "transpose", "unbind", "unflatten",
    "_unsafe_view", "unsqueeze", "view", "avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d",
    "max_pool2d_with_indices", "upsample_nearest1d", "upsample_nearest2d",
})  # fmt: skip
# The 8-bit specification fixes the ranges of these outputs: scale 1/256 from 0, and 1/128 around 0.
_FIXED: Mapping[str, tuple[float, float]] = {
    "softmax": (0.0, 255 / 256),
    "_softmax": (0.0, 255 / 256),
    "sigmoid": (0.0, 255 / 256),
    "tanh": (-1.0, 127 / 128),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalization:
    """A batch normalization: its node, and the names of what it holds ("": it has none)."""

    node: Node
    weight: str
    bias: str
    mean: str
    variance: str
    epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A convolution or linear layer; `axis` is that of the output channels, `int4` whether LiteRT takes int4 there."""

    node: Node
    weight: str
    bias: str
    axis: int
    int4: bool
    normalization: Normalization | None


def functional(program: torch.export.ExportedProgram) -> GraphModule:
    """The program without operators that work in place: what uses a node's value then uses that node."""
    module = program.run_decompositions({}).module(check_guards=False)
    assert isinstance(module, GraphModule)
    return GraphModule(module, module.graph)  # without the check that arguments come by their names


def kernels(module: GraphModule, known: Mapping[str, Any]) -> list[Kernel]:
    """The kernels that can be trained: whose weights are of `known` names and used nowhere else."""
    found = []
    for node in module.graph.nodes:
        axis = _CHANNEL_AXIS.get(operation(node))
        if axis is None or not (weight := _held(argument(node, "weight"), known)):
            continue
        bias, has_bias = _held(argument(node, "bias"), known), argument(node, "bias") is not None
        groups, transposed = int(argument(node, "groups") or 1), argument(node, "transposed") or axis == 1
        if (has_bias and not bias) or (transposed and groups != 1):
            continue
        found.append(
            Kernel(
                node=node,
                weight=weight,
                bias=bias,
                axis=1 if transposed else 0,
                # LiteRT has int4 rules for CONV_2D and FULLY_CONNECTED only (ai-edge-quantizer 0.10).
                int4=not transposed and (groups == 1 or value(argument(node, "weight")).shape[1] != 1),
                normalization=_normalization_of(node, known),
            )
        )
    return found


def normalizations(module: GraphModule) -> list[Node]:
    """All batch normalizations of which only the result is used."""
    return [node for node in module.graph.nodes if operation(node) == _NORMALIZATION and result_of(node) is not None]


def result_of(normalization: Node) -> Node | None:
    """The node that takes the normalized tensor out of the operator's triple; None when more is taken."""
    users = list(normalization.users)
    return users[0] if len(users) == 1 and users[0].args[1] == 0 else None


def grids(module: GraphModule) -> Iterator[tuple[Node, tuple[float, float] | None]]:
    """The nodes whose tensors are quantized, inputs first, each with its range where the runtimes fix that."""
    moving: set[Node] = set()  # what depends on the inputs
    for node in module.graph.nodes:
        if node.op == "placeholder" or any(given in moving for given in node.all_input_nodes):
            moving.add(node)
    for node in module.graph.nodes:
        if node not in moving or node.op == "output" or not is_float(node):
            continue
        plain = node.op != "placeholder" and operation(node) in _SAME_GRID
        if node.op == "placeholder" or not (plain or _fused_with_next(node)):
            yield node, _FIXED.get(operation(node))


def logits(node: Node) -> Node | None:
    """What a softmax over the last axis was computed from; None for other nodes."""
    if operation(node) not in ("softmax", "_softmax", "log_softmax", "_log_softmax"):
        return None
    (given,) = node.all_input_nodes
    return given if argument(node, "dim") in (-1, value(node).ndim - 1) else None


def operation(node: Node) -> str:
    """The name of its operator, without overload; "" for what is no call of one."""
    if node.op != "call_function":
        return ""
    if node.target is operator.getitem:
        return "getitem"
    schema = getattr(node.target, "_schema", None)
    return str(schema.name).partition("::")[2] if schema else ""


def argument(node: Node, name: str) -> Any:
    """What the node gives for a parameter of its operator, or its default; None when there is no such parameter."""
    for place, parameter in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if parameter.name == name:
            return node.args[place] if place < len(node.args) else node.kwargs.get(name, parameter.default_value)
    return None


def value(node: Node) -> Any:
    """The tensor without data that stands for what the node gives."""
    return node.meta["val"]


def is_float(node: Node) -> bool:
    held = node.meta.get("val")
    return isinstance(held, torch.Tensor) and held.dtype == torch.float32


def _held(node: Any, known: Mapping[str, Any]) -> str:
    """The name of a weight that this node alone fetches for one user alone."""
    if not isinstance(node, Node) or node.op != "get_attr" or len(node.users) != 1:
        return ""
    name = str(node.target)
    return name if name in known and known[name].dtype == torch.float32 else ""


def _normalization_of(kernel: Node, known: Mapping[str, Any]) -> Normalization | None:
    """The batch normalization that alone uses what the kernel gives, and nothing else."""
    users = list(kernel.users)
    if len(users) != 1 or operation(users[0]) != _NORMALIZATION or result_of(users[0]) is None:
        return None
    node = users[0]
    if operation(kernel) == "linear" and value(kernel).ndim != 2:  # channels are the second axis there, here the last
        return None
    names = [_held(argument(node, part), known) for part in ("weight", "bias", "running_mean", "running_var")]
    given = [argument(node, part) is not None for part in ("weight", "bias", "running_mean", "running_var")]
    if any(has and not name for has, name in zip(given, names, strict=True)):
        return None
    weight, bias, mean, variance = names
    return Normalization(
        node=node, weight=weight, bias=bias, mean=mean, variance=variance, epsilon=float(argument(node, "eps"))
    )


def _fused_with_next(node: Node) -> bool:
    """Whether the runtimes compute the activation after it in the same op, so that no tensor is between them."""
    return bool(node.users) and all(_is_fused_activation(user) for user in node.users)


def _is_fused_activation(node: Node) -> bool:
    name = operation(node)
    if name in ("hardtanh", "clamp"):
        ends = ("min_val", "max_val") if name == "hardtanh" else ("min", "max")
        return tuple(argument(node, end) for end in ends) in ((0, 6), (0, None))
    return name in ("relu", "relu6")

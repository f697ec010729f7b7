"""A program with fake quantization wherever the static int8 recipes quantize, and its weights brought back from there.

Batch normalization is folded into the kernel before it, as the converters do, and its statistics stay as they were
trained; a few dozen samples could only make them worse.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch.fx import GraphModule, Node
from torch.fx.graph import CodeGen

from pipeline.finetune.torch.graph import (
    Kernel,
    Normalization,
    argument,
    functional,
    grids,
    is_float,
    kernels,
    logits,
    normalizations,
    result_of,
    value,
)
from pipeline.finetune.torch.layers import Affine, Mode, QuantizedActivation, QuantizedKernel

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedProgram:
    """`module` takes the inputs by place and gives the outputs and then, as many again, what distillation compares:
    the same, or the logits of a softmax."""

    module: GraphModule
    mode: Mode
    kernels: tuple[tuple[Kernel, QuantizedKernel], ...]
    activations: tuple[QuantizedActivation, ...]
    softmax: tuple[bool, ...]  # by output: whether the second half has its logits
    untrained: tuple[str, ...]  # weights that stay as they are
    sample_bytes: int  # of what one sample's tensors take, as they are kept for the gradients

    @property
    def learned(self) -> list[QuantizedActivation]:
        """Those whose range is no fixed one."""
        return [layer for layer in self.activations if layer.fixed is None]


@dataclass(slots=True)
class _Parts:
    kernels: list[tuple[Kernel, QuantizedKernel]] = field(default_factory=list)
    activations: list[QuantizedActivation] = field(default_factory=list)


def quantized_program(program: torch.export.ExportedProgram, *, weight_bits: int) -> QuantizedProgram:
    """Put fake quantization around every op of the program.

    Raises:
        ValueError: no kernel could be trained.
    """
    module, mode, weights = functional(program), Mode(), program.state_dict
    module.requires_grad_(False)
    parts = _Parts()
    found = kernels(module, weights)
    if not found:
        raise ValueError("no layer to train: the kernels we know are convolutions and linear layers of its own weights")
    for number, kernel in enumerate(found):
        bits = weight_bits if kernel.int4 else 8
        made = QuantizedKernel(*_folded(kernel, weights), mode, bits=bits, axis=kernel.axis, name=kernel.weight)
        _place_kernel(module, f"kernel_{number}", kernel, made)
        parts.kernels.append((kernel, made))
    for node in normalizations(module):
        _place_affine(module, node)
    for number, (node, fixed) in enumerate(list(grids(module))):
        layer = QuantizedActivation(f"{node.name}_grid_{number}", mode, fixed)
        _place_after(module, f"grid_{number}", node, layer)
        parts.activations.append(layer)
    softmax = _compare(module)
    module.graph.eliminate_dead_code()
    module.recompile()
    trained = {name for kernel in found for name in _names(kernel)}
    return QuantizedProgram(
        module=module,
        mode=mode,
        kernels=tuple(parts.kernels),
        activations=tuple(parts.activations),
        softmax=softmax,
        untrained=tuple(name for name, held in program.named_parameters() if name not in trained and held.ndim > 1),
        sample_bytes=_sample_bytes(module),
    )


def write_back(quantized: QuantizedProgram, program: torch.export.ExportedProgram) -> None:
    """Put the kernels on their grids for good, here and in the program. A normalization that was folded in keeps its
    place there, with nothing to do but to add the bias."""
    held = program.state_dict
    with torch.no_grad():
        for kernel, made in quantized.kernels:
            made.weight.copy_(made.on_grid())
            held[kernel.weight].copy_(made.weight)
            known = kernel.normalization
            if known is None:
                if kernel.bias and made.bias is not None:
                    held[kernel.bias].copy_(made.bias)
                continue
            assert made.bias is not None, "what is folded has a bias"
            held[known.mean].copy_(-made.bias)
            held[known.variance].fill_(1.0 - known.epsilon)
            for name, neutral in ((known.weight, 1.0), (known.bias, 0.0), (kernel.bias, 0.0)):
                if name:
                    held[name].fill_(neutral)


def _names(kernel: Kernel) -> set[str]:
    known = kernel.normalization
    return {kernel.weight, kernel.bias, *((known.weight, known.bias) if known else ())}


def _folded(kernel: Kernel, weights: Weights) -> tuple[torch.Tensor, torch.Tensor | None]:
    weight, bias = weights[kernel.weight].detach(), weights[kernel.bias].detach() if kernel.bias else None
    if kernel.normalization is None:
        return weight, bias
    factor, offset = _factor_and_offset(kernel.normalization, weights)
    shape = [-1 if axis == kernel.axis else 1 for axis in range(weight.ndim)]
    return weight * factor.reshape(shape), offset if bias is None else offset + bias * factor


def _factor_and_offset(known: Normalization, weights: Weights) -> tuple[torch.Tensor, torch.Tensor]:
    factor = torch.rsqrt(weights[known.variance].detach() + known.epsilon)
    if known.weight:
        factor = factor * weights[known.weight].detach()
    offset = -weights[known.mean].detach() * factor
    return factor, offset + weights[known.bias].detach() if known.bias else offset


def _place_kernel(module: GraphModule, name: str, kernel: Kernel, made: QuantizedKernel) -> None:
    graph, node = module.graph, kernel.node
    module.add_submodule(name, made)
    with graph.inserting_before(node):
        weight = graph.call_module(name)
        bias = graph.get_attr(f"{name}.bias") if made.bias is not None else None
    node.args = (node.args[0], weight, bias, *node.args[3:])
    if kernel.normalization is not None:
        result = result_of(kernel.normalization.node)
        assert result is not None, "kernels are given none that is used otherwise"
        result.replace_all_uses_with(node)
        graph.erase_node(result)
        graph.erase_node(kernel.normalization.node)


def _place_affine(module: GraphModule, node: Node) -> None:
    """Not as the operator, which PyTorch cannot vectorize."""
    result = result_of(node)
    assert result is not None
    mean, variance = (_fetched(module, node, part) for part in ("running_mean", "running_var"))
    factor = torch.rsqrt(variance + float(argument(node, "eps")))
    if argument(node, "weight") is not None:
        factor = factor * _fetched(module, node, "weight")
    offset = -mean * factor
    if argument(node, "bias") is not None:
        offset = offset + _fetched(module, node, "bias")
    name = f"{node.name}_affine"
    module.add_submodule(name, Affine(factor, offset))
    with module.graph.inserting_after(node):
        made = module.graph.call_module(name, (node.args[0],))
    made.meta["val"] = result.meta["val"]
    result.replace_all_uses_with(made)
    module.graph.erase_node(result)
    module.graph.erase_node(node)


def _fetched(module: GraphModule, node: Node, part: str) -> torch.Tensor:
    place, _, name = str(argument(node, part).target).rpartition(".")
    held: torch.Tensor = getattr(module.get_submodule(place), name)
    return held.detach()


def _place_after(module: GraphModule, name: str, node: Node, layer: torch.nn.Module) -> None:
    module.add_submodule(name, layer)
    with module.graph.inserting_after(node):
        made = module.graph.call_module(name, (node,))
    made.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(made, delete_user_cb=lambda user: user is not made)


def _compare(module: GraphModule) -> tuple[bool, ...]:
    """Give out flat what distillation compares, after the outputs; say which of it are logits."""
    last = module.graph.output_node()
    (outputs,) = last.args
    compared: list[Node] = []
    softmax: list[bool] = []
    for output in outputs:  # type: ignore[union-attr]
        assert isinstance(output, Node)
        source = output.all_input_nodes[0] if output.op == "call_module" and output.all_input_nodes else output
        found = logits(source)
        compared.append(found or output)
        softmax.append(found is not None)
    last.args = ((*outputs, *compared),)  # type: ignore[misc]
    module.graph.set_codegen(CodeGen())  # inputs by place, outputs as a tuple
    return tuple(softmax)


def _sample_bytes(module: GraphModule) -> int:
    held = [value(node) for node in module.graph.nodes if node.op != "get_attr" and is_float(node)]
    return sum(tensor.numel() * tensor.element_size() for tensor in held)

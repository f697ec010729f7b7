"""The layers of a torch.export program that PyTorch can quantize, made modules again, and quantized."""

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import fx

from pipeline.errors import ConversionFailed, EnvironmentFault
from pipeline.exporters.torch_program import examples, read_program, write_torchscript

_LINEAR = torch.ops.aten.linear.default
# Both give (sequence, last state …), with all states flat behind the sequence, as aten has them.
_RECURRENT: dict[Any, Any] = {
    torch.ops.aten.lstm.input: torch.nn.LSTM,
    torch.ops.aten.gru.input: torch.nn.GRU,
}
_WEIGHTS_OF_A_DIRECTION = {True: 4, False: 2}  # input and hidden weights, and their biases


def quantize_dynamic(source: Path, output: Path, *, engine: str) -> None:
    """Write the program at `source` with int8 Linear, LSTM and GRU as TorchScript for `engine`.

    Raises:
        EnvironmentFault: this PyTorch has no such engine.
        ConversionFailed: there is no layer to quantize.
    """
    there = list(torch.backends.quantized.supported_engines)
    if engine not in there:
        raise EnvironmentFault(
            f"this PyTorch has no quantization engine {engine!r}, but {', '.join(there)}",
            hint="make the model on a machine whose PyTorch has it: builds for x86 have x86 and qnnpack",
        )
    program = read_program(source)
    module = program.module(check_guards=False)
    if not as_modules(module):
        raise ConversionFailed(
            "nothing was quantized: the model has no Linear, LSTM or GRU with weights of its own",
            hint="PyTorch quantizes no others while running; take litert-int8 or onnx-int8",
        )
    torch.backends.quantized.engine = engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao is deprecated in favour of torchao, which has no LSTM and GRU
        quantized = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            module, {torch.nn.Linear, torch.nn.LSTM, torch.nn.GRU}, dtype=torch.qint8
        )
    write_torchscript(quantized, examples(program), output, engine=engine)


def as_modules(module: fx.GraphModule) -> int:
    """Replace calls of linear, lstm and gru over stored weights by modules that hold these; how many there were."""
    made = 0
    for node in list(module.graph.nodes):
        layer = None
        if node.op == "call_function" and node.target == _LINEAR:
            layer = _linear(module, node)
        elif node.op == "call_function" and node.target in _RECURRENT:
            layer = _recurrent(module, node)
        if layer is None:
            continue
        name = f"layer_{made}"
        module.add_submodule(name, layer)
        with module.graph.inserting_before(node):
            _call(module.graph, node, name)
        made += 1
    module.graph.eliminate_dead_code()
    module.recompile()
    return made


def _call(graph: fx.Graph, node: fx.Node, name: str) -> None:
    if node.target == _LINEAR:
        node.replace_all_uses_with(graph.call_module(name, (node.args[0],)))
    else:
        state = node.args[1]
        whole = graph.call_module(name, (node.args[0], tuple(state) if isinstance(state, list | tuple) else state))
        for user in list(node.users):  # getitem(lstm, 0), (…, 1), (…, 2)
            place = user.args[1]
            with graph.inserting_before(user):
                part = graph.call_function(user.target, (whole, min(place, 1)))  # type: ignore[arg-type, type-var]
                if node.target == torch.ops.aten.lstm.input and place:
                    part = graph.call_function(user.target, (part, place - 1))  # type: ignore[arg-type, operator]
            user.replace_all_uses_with(part)
            graph.erase_node(user)
    graph.erase_node(node)


def _linear(module: fx.GraphModule, node: fx.Node) -> torch.nn.Module | None:
    weight, bias = _stored(module, node.args[1]), _stored(module, node.args[2] if len(node.args) > 2 else None)
    if weight is None or (len(node.args) > 2 and node.args[2] is not None and bias is None):
        return None
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    _fill(layer, {"weight": weight, "bias": bias})
    return layer.eval()


def _recurrent(module: fx.GraphModule, node: fx.Node) -> torch.nn.Module | None:
    _, _, stored, biased, layers, _, _, both_ways, batch_first = node.args
    weights = [_stored(module, one) for one in stored]  # type: ignore[union-attr]
    directions = int(layers) * (2 if both_ways else 1)  # type: ignore[arg-type]
    # With a projection there is one weight more for each direction, and torch.ao has no such layer.
    if any(weight is None for weight in weights) or len(weights) != directions * _WEIGHTS_OF_A_DIRECTION[bool(biased)]:
        return None
    first, hidden = weights[0], weights[1]
    assert first is not None and hidden is not None
    layer: torch.nn.Module = _RECURRENT[node.target](
        first.shape[1],
        hidden.shape[1],
        layers,
        bias=bool(biased),
        batch_first=bool(batch_first),
        bidirectional=bool(both_ways),
    )
    _fill(layer, dict(zip((name for name, _ in layer.named_parameters()), weights, strict=True)))
    return layer.eval()


def _fill(layer: torch.nn.Module, weights: dict[str, torch.Tensor | None]) -> None:
    layer.load_state_dict({name: copy.deepcopy(weight) for name, weight in weights.items() if weight is not None})


def _stored(module: fx.GraphModule, node: Any) -> torch.Tensor | None:
    """The parameter that a node stands for; None when it is computed."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    place: Any = module
    for part in str(node.target).split("."):
        place = getattr(place, part)
    return place.detach() if isinstance(place, torch.Tensor) else None

"""The version of a TFLite operator that its tensors need, where a converter does not say it.

TensorFlow's converter writes each operator's version after looking at its tensors. ai-edge-quantizer does not: its
files say version 1, an older runtime takes them, reads only the first of the weights' scales, and answers wrong without
a word (seen with tflite-runtime 2.14.0 and a scale per channel of dense weights). So tensors are looked at here too.

The rules are those of TFLite's own versioning (google-ai-edge/LiteRT, tflite/tools/versioning/op_version.cc), as far as
they lead beyond what tflite-runtime 2.14.0 knows; what is older, every runtime that is met has.
"""

from collections.abc import Callable, Mapping, Sequence

from pipeline.fit.tflite_graph import FLOAT32, INT2, INT4, INT8, INT16, Tensor

Tensors = Sequence[Tensor | None]
_EMBEDDING_LOOKUP, _FULLY_CONNECTED, _GATHER, _TRANSPOSE, _DEQUANTIZE, _QUANTIZE, _GELU = 7, 9, 36, 39, 6, 114, 150
CONV_2D, DEPTHWISE_CONV_2D = 3, 4


def needed_version(builtin: int, inputs: Tensors, outputs: Tensors) -> int:
    """The least version that computes this operator, as far as the rules above go; else 1."""
    rule = _RULES.get(builtin)
    return rule(inputs, outputs) if rule and inputs and outputs else 1


def _fully_connected(inputs: Tensors, outputs: Tensors) -> int:
    given, weights = _type(inputs, 0), inputs[1] if len(inputs) > 1 else None
    if weights is None:
        return 1
    if weights.type == INT2 or weights.blockwise:  # by blocks: ai-edge-litert 1.4.0 takes it and answers wrong
        return 14
    if weights.type == INT4:
        by_input = {INT16: 13, INT8: 10}
        if given in by_input:
            return by_input[given]
    if given == FLOAT32 and weights.type in (INT8, INT4) and weights.scales > 1:
        return 12
    return 1


def _convolution(inputs: Tensors, outputs: Tensors) -> int:
    if _type(inputs, 1) != INT4:
        return 1
    # On float inputs: tflite-runtime 2.14.0, which ends at 7, takes it and answers garbage.
    return 7 if _type(inputs, 0) == INT8 else 8


def _depthwise(inputs: Tensors, outputs: Tensors) -> int:
    return 7 if _type(inputs, 1) == INT4 else 1


def _embedding(inputs: Tensors, outputs: Tensors) -> int:
    table = inputs[1] if len(inputs) > 1 else None
    return 4 if table and (table.type == INT4 or (table.type == INT8 and table.scales > 1)) else 1


def _dequantize(inputs: Tensors, outputs: Tensors) -> int:
    return 6 if _type(inputs, 0) == INT4 else 1


def _quantize(inputs: Tensors, outputs: Tensors) -> int:
    return 4 if INT4 in (_type(inputs, 0), _type(outputs, 0)) else 1


def _moving(inputs: Tensors, outputs: Tensors) -> int:
    return 7 if _type(inputs, 0) == INT4 else 1


def _gelu(inputs: Tensors, outputs: Tensors) -> int:
    # The converter of TensorFlow 2.21 writes 2; runtimes that end there refuse it: "got INT16".
    return 3 if _type(inputs, 0) == INT16 else 1


def _type(tensors: Tensors, place: int) -> int | None:
    tensor = tensors[place] if place < len(tensors) else None
    return tensor.type if tensor else None


_RULES: Mapping[int, Callable[[Tensors, Tensors], int]] = {
    CONV_2D: _convolution,
    DEPTHWISE_CONV_2D: _depthwise,
    _DEQUANTIZE: _dequantize,
    _EMBEDDING_LOOKUP: _embedding,
    _FULLY_CONNECTED: _fully_connected,
    _GATHER: _moving,
    _GELU: _gelu,
    _QUANTIZE: _quantize,
    _TRANSPOSE: _moving,
}

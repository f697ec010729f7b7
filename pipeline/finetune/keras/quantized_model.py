"""A folded model with fake quantization wherever the static int8 recipes quantize."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from pipeline.finetune.keras.folding import fused_activation, is_transposed
from pipeline.finetune.keras.graph import Links, links
from pipeline.finetune.keras.layers import KERNELS, Mode, QuantizedActivation, QuantizedWeights, kernels

# Ops that move values but make no new ones: what they give is on the grid of what they got. Average pooling is among
# them because the runtimes want one scale on both sides of it.
_SAME_GRID = frozenset(
    {
        "ActivityRegularization",
        "AlphaDropout",
        "AveragePooling1D",
        "AveragePooling2D",
        "ConvertToTensor",
        "Cropping1D",
        "Cropping2D",
        "Dropout",
        "ExpandDims",
        "Flatten",
        "GaussianDropout",
        "GaussianNoise",
        "GetItem",
        "GlobalMaxPooling1D",
        "GlobalMaxPooling2D",
        "Identity",
        "MaxPooling1D",
        "MaxPooling2D",
        "Permute",
        "RepeatVector",
        "Reshape",
        "SpatialDropout1D",
        "SpatialDropout2D",
        "Squeeze",
        "Transpose",
        "ZeroPadding1D",
        "ZeroPadding2D",
    }
)
# The 8-bit specification fixes the ranges of these outputs: scale 1/256 from 0, and 1/128 around 0.
_FIXED = {"softmax": (0.0, 255 / 256), "sigmoid": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}
_FIXED_KINDS = {"Softmax": "softmax", "Sigmoid": "sigmoid", "Tanh": "tanh"}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedModel:
    """`model` gives the outputs of the folded model and then, as many again, what distillation compares: the same,
    or the logits of a softmax. It shares its variables with the folded model."""

    model: Any
    mode: Mode
    weights: tuple[QuantizedWeights, ...]
    activations: tuple[QuantizedActivation, ...]
    softmax: tuple[bool, ...]  # by output: whether the second half has its logits
    untrained: tuple[str, ...]  # layers with weights that stay as they are, "name (type)"

    def seen(self, inputs: list[Any]) -> dict[str, Any]:
        """What each learned range's tensor holds in float for these inputs, by the name of the range's layer."""
        self.mode.quantizing, self.mode.observing = False, True
        self.model(keras.tree.pack_sequence_as(self.model.input, inputs), training=False)
        self.mode.observing = False
        return {layer.name: np.asarray(layer.seen) for layer in self.activations if layer.fixed is None}


def quantized_model(folded: Any, *, weight_bits: int) -> QuantizedModel:
    """Put fake quantization around every op of a folded model.

    Raises:
        ValueError: no layer has a kernel that could be trained.
    """
    linked, mode = links(folded), Mode()
    untrained = []
    for layer in folded.layers:
        if not kernels(layer):
            layer.trainable = False
            if layer.weights:
                untrained.append(f"{layer.name} ({type(layer).__name__})")
    inputs = keras.tree.map_structure(
        lambda tensor: keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name), folded.input
    )
    builder = _Builder(linked, mode, weight_bits, keras.tree.flatten(inputs))
    clone = keras.models.clone_model(
        folded, input_tensors=inputs, clone_function=builder.clone, call_function=builder.call
    )
    if not builder.weights:
        raise ValueError(f"no layer to train: the kernels we know are those of {', '.join(KERNELS)}")
    outputs = list(clone.outputs)
    return QuantizedModel(
        model=keras.Model(inputs, [*outputs, *(builder.logits.get(id(tensor), tensor) for tensor in outputs)]),
        mode=mode,
        weights=tuple(builder.weights),
        activations=tuple(builder.activations),
        softmax=tuple(id(tensor) in builder.logits for tensor in outputs),
        untrained=tuple(untrained),
    )


class _Builder:
    """The two functions that `clone_model` calls, and what they made."""

    def __init__(self, linked: Links, mode: Mode, weight_bits: int, inputs: list[Any]) -> None:
        self._links, self._mode, self._bits = linked, mode, weight_bits
        self._inner: dict[int, Any] = {}  # wrapper -> the layer it is around
        self._inputs: dict[int, Any] = {id(tensor): None for tensor in inputs}
        self.weights: list[QuantizedWeights] = []
        self.activations: list[QuantizedActivation] = []
        self.logits: dict[int, Any] = {}

    def clone(self, operation: Any) -> Any:
        if not kernels(operation):
            return operation
        wrapper = QuantizedWeights(operation, self._mode, self._bits)
        self._inner[id(wrapper)] = operation
        self.weights.append(wrapper)
        return wrapper

    def call(self, operation: Any, *arguments: Any, **named: Any) -> Any:
        arguments, named = keras.tree.map_structure(self._input, (arguments, named))
        answer = operation(*arguments, **named)
        plain = self._inner.get(id(operation), operation)
        if _keeps_grid(plain) or self._fused_with_next(plain):
            return answer
        kind = _activation(plain)
        quantized = keras.tree.map_structure(lambda tensor: self._on_grid(plain.name, tensor, _FIXED.get(kind)), answer)
        if kind == "softmax":
            self.logits[id(quantized)] = arguments[0]
        return quantized

    def _input(self, tensor: Any) -> Any:
        """An input of the model on its grid, the same for all that use it."""
        if id(tensor) not in self._inputs:
            return tensor
        if self._inputs[id(tensor)] is None:
            self._inputs[id(tensor)] = self._on_grid(tensor.name, tensor, None)
        return self._inputs[id(tensor)]

    def _on_grid(self, name: str, tensor: Any, fixed: tuple[float, float] | None) -> Any:
        if not str(getattr(tensor, "dtype", "")).startswith("float"):
            return tensor  # indices are not quantities
        layer = QuantizedActivation(f"{name}_grid_{len(self.activations)}", self._mode, fixed)
        self.activations.append(layer)
        return layer(tensor)

    def _fused_with_next(self, operation: Any) -> bool:
        after = self._links.after[id(operation)]
        return not is_transposed(operation) and bool(after) and all(fused_activation(next_one) for next_one in after)


def _activation(operation: Any) -> str:
    kind = type(operation).__name__
    name = getattr(operation.activation, "__name__", "") if kind == "Activation" else ""
    return name or _FIXED_KINDS.get(kind, kind)


def _keeps_grid(operation: Any) -> bool:
    kind = type(operation).__name__
    nearest = kind.startswith("UpSampling") and getattr(operation, "interpolation", "nearest") == "nearest"
    return kind in _SAME_GRID or nearest or _activation(operation) == "linear"

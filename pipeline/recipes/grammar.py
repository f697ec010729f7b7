"""How a recipe's name reads: FORMAT-PRECISION[-OPTION]…, every part from one of these tables."""

from collections.abc import Mapping

FORMATS: Mapping[str, str] = {
    "litert": "a `.tflite` file, run by LiteRT (TensorFlow Lite)",
    "onnx": "an `.onnx` file, run by onnxruntime",
    "torch": "a TorchScript file (`.pt`), run by PyTorch itself",
}
PRECISIONS: Mapping[str, str] = {
    "float32": "the model as exported: the baseline",
    "float16": "half-precision weights; where the runtime computes in half precision too, that is said",
    "dynamic-int8": "int8 weights; activations are rounded to int8 while the model runs, so it takes no samples",
    "weight-int8": "int8 weights, computed in float",
    "weight-int4": "int4 weights, computed in float where the runtime can",
    "int8": "int8 weights and 8-bit activations, ranges from calibration samples",
    "int16x8": "int16 activations and int8 weights",
    "qat-int8": "as int8, after quantization-aware fine-tuning of a Keras or PyTorch source",
    "as-is": "a source that is quantized already, unchanged",
    "mixed": "the precision that deploy.yaml's `mixed` gives to each op",
    "auto": "a precision for every op, searched to meet `budgets.max_drop` at the least cost",
}
OPTIONS: Mapping[str, str] = {
    "io-int8": "the model's own inputs and outputs are int8 too (without: float32, as before)",
    "io-uint8": "the model's own inputs and outputs are uint8 (camera bytes)",
    "pixels": "takes an image's bytes: `scale` and `mean_std` of the preprocessing are inside the model",
    "all": "weights of fewer than 1024 elements as well",
    "w4": "int4 weights where the runtime has them (without: int8)",
    "w7": "weights in 7 of the 8 bits: on x86 without VNNI, sums of two 8-bit products saturate otherwise",
    "s8s8": "signed activations and signed weights (without: unsigned activations)",
    "qnnpack": "PyTorch's engine for ARM (without: x86, for PCs)",
    "u8s8": "unsigned activations and signed weights (without: both unsigned)",
    "b32": "one scale for each 32 weights (without: one for each output channel)",
    "b64": "one scale for each 64 weights",
    "b128": "one scale for each 128 weights",
    "cle": "repair: layers' weights are equalised before rounding",
    "bias": "repair: biases make up for the mean error of rounded weights",
    "gptq": "repair: weights rounded by what that does to the layer's output, and biases as with `bias`",
    "octav": "repair: weights clipped where their error is least",
    "mse": "repair: weights clipped by their standard deviation",
}


def decoded(name: str) -> tuple[tuple[str, str], ...]:
    """The parts of a recipe's name in order, each with what it means.

    Raises:
        ValueError: a part stands in none of the tables.
    """
    head, _, rest = name.partition("-")
    if head not in FORMATS:
        raise ValueError(f"{name}: {head!r} is no format; there are {', '.join(FORMATS)}")
    precision = max((known for known in PRECISIONS if f"{rest}-".startswith(f"{known}-")), key=len, default="")
    if not precision:
        raise ValueError(f"{name}: {rest!r} begins with no precision; there are {', '.join(PRECISIONS)}")
    parts = [(head, FORMATS[head]), (precision, PRECISIONS[precision])]
    left = rest.removeprefix(precision).removeprefix("-")
    while left:
        option = max((known for known in OPTIONS if f"{left}-".startswith(f"{known}-")), key=len, default="")
        if not option:
            raise ValueError(f"{name}: {left!r} begins with no option; there are {', '.join(OPTIONS)}")
        parts.append((option, OPTIONS[option]))
        left = left.removeprefix(option).removeprefix("-")
    return tuple(parts)


def float_of(recipe: str) -> str:
    """The float32 recipe of the same format."""
    return f"{recipe.partition('-')[0]}-float32"

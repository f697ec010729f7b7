"""Quantization recipes. A name decodes as FORMAT-PRECISION[-OPTION]…; `grammar` has every word and what it means, and
`deploy recipes NAME` says it of one.

`auto` alone in deploy.yaml is the auto recipe of the source's first format.

A recipe costs one module, one row here, and one line in `tests/contract/test_recipes.py`. Third parties register under
the entry-point group `edge_deploy.recipes`.
"""

from collections.abc import Mapping

from pipeline.errors import nearest
from pipeline.plugins import with_entry_points

RECIPES = with_entry_points(
    {
        "litert-as-is": "pipeline.recipes.as_is:LITERT",
        "litert-float32": "pipeline.recipes.float32:LITERT",
        "litert-float32-pixels": "pipeline.recipes.pixels:LITERT_FLOAT32",
        "litert-float16": "pipeline.recipes.litert_tensorflow:FLOAT16",
        "litert-dynamic-int8": "pipeline.recipes.litert_tensorflow:DYNAMIC_INT8",
        "litert-dynamic-int8-all": "pipeline.recipes.litert_weights:DYNAMIC_INT8_ALL",
        "litert-weight-int8": "pipeline.recipes.litert_weights:WEIGHT_INT8",
        "litert-weight-int4": "pipeline.recipes.litert_weights:WEIGHT_INT4",
        "litert-weight-int4-b32": "pipeline.recipes.litert_weights:WEIGHT_INT4_B32",
        "litert-weight-int4-b64": "pipeline.recipes.litert_weights:WEIGHT_INT4_B64",
        "litert-weight-int4-b128": "pipeline.recipes.litert_weights:WEIGHT_INT4_B128",
        "litert-int8": "pipeline.recipes.litert_static:INT8",
        "litert-int8-pixels": "pipeline.recipes.pixels:LITERT_INT8",
        "litert-int8-io-int8": "pipeline.recipes.litert_static:INT8_IO_INT8",
        "litert-int8-io-uint8": "pipeline.recipes.litert_static:INT8_IO_UINT8",
        "litert-int8-cle": "pipeline.recipes.litert_static:INT8_CLE",
        "litert-int8-cle-bias": "pipeline.recipes.litert_static:INT8_CLE_BIAS",
        "litert-int8-bias": "pipeline.recipes.litert_static:INT8_BIAS",
        "litert-int8-octav": "pipeline.recipes.litert_static:INT8_OCTAV",
        "litert-int8-mse": "pipeline.recipes.litert_static:INT8_MSE",
        "litert-mixed": "pipeline.recipes.litert_static:MIXED",
        "litert-auto": "pipeline.recipes.litert_static:AUTO",
        "litert-int8-w4": "pipeline.recipes.litert_static:INT8_W4",
        "litert-qat-int8": "pipeline.recipes.litert_static:QAT_INT8",
        "litert-qat-int8-w4": "pipeline.recipes.litert_static:QAT_INT8_W4",
        "litert-int16x8": "pipeline.recipes.litert_static:INT16X8",
        "onnx-as-is": "pipeline.recipes.as_is:ONNX",
        "onnx-float32": "pipeline.recipes.float32:ONNX",
        "onnx-float32-pixels": "pipeline.recipes.pixels:ONNX_FLOAT32",
        "onnx-float16": "pipeline.recipes.onnx_float16:FLOAT16",
        "onnx-dynamic-int8": "pipeline.recipes.onnx_dynamic:DYNAMIC_INT8",
        "onnx-dynamic-int8-u8s8": "pipeline.recipes.onnx_dynamic:DYNAMIC_INT8_U8S8",
        "onnx-weight-int8-b32": "pipeline.recipes.onnx_weights:INT8_B32",
        "onnx-weight-int8-b64": "pipeline.recipes.onnx_weights:INT8_B64",
        "onnx-weight-int8-b128": "pipeline.recipes.onnx_weights:INT8_B128",
        "onnx-weight-int4-b32": "pipeline.recipes.onnx_weights:INT4_B32",
        "onnx-weight-int4-b64": "pipeline.recipes.onnx_weights:INT4_B64",
        "onnx-weight-int4-b128": "pipeline.recipes.onnx_weights:INT4_B128",
        "onnx-int8": "pipeline.recipes.onnx_static:INT8",
        "onnx-int8-pixels": "pipeline.recipes.pixels:ONNX_INT8",
        "onnx-int8-s8s8": "pipeline.recipes.onnx_static:INT8_S8S8",
        "onnx-int8-w7": "pipeline.recipes.onnx_static:INT8_W7",
        "onnx-int16x8": "pipeline.recipes.onnx_static:INT16X8",
        "onnx-int8-cle": "pipeline.recipes.onnx_static:INT8_CLE",
        "onnx-int8-cle-bias": "pipeline.recipes.onnx_static:INT8_CLE_BIAS",
        "onnx-int8-bias": "pipeline.recipes.onnx_static:INT8_BIAS",
        "onnx-int8-gptq": "pipeline.recipes.onnx_static:INT8_GPTQ",
        "onnx-mixed": "pipeline.recipes.onnx_static:MIXED",
        "onnx-auto": "pipeline.recipes.onnx_static:AUTO",
        "onnx-qat-int8": "pipeline.recipes.onnx_static:QAT_INT8",
        "torch-float32": "pipeline.recipes.float32:TORCH",
        "torch-dynamic-int8": "pipeline.recipes.torch_dynamic:X86",
        "torch-dynamic-int8-qnnpack": "pipeline.recipes.torch_dynamic:QNNPACK",
    },
    "edge_deploy.recipes",
)

# Not run unless deploy.yaml names them: they change the model's own inputs, are for one kind of CPU or of model, do
# what another does better on most networks, repair, search, or train.
OPTIONAL = frozenset(
    {
        "litert-float32-pixels",
        "litert-int8-pixels",
        "onnx-float32-pixels",
        "onnx-int8-pixels",
        "litert-dynamic-int8-all",
        "litert-weight-int8",
        "litert-weight-int4",
        "litert-weight-int4-b32",
        "litert-weight-int4-b64",
        "litert-weight-int4-b128",
        "litert-int8-io-int8",
        "litert-int8-io-uint8",
        "litert-int8-cle",
        "litert-int8-cle-bias",
        "litert-int8-bias",
        "litert-int8-octav",
        "litert-int8-mse",
        "litert-mixed",
        "litert-auto",
        "litert-int8-w4",
        "litert-qat-int8",
        "litert-qat-int8-w4",
        "onnx-dynamic-int8-u8s8",
        "onnx-weight-int8-b32",
        "onnx-weight-int8-b64",
        "onnx-weight-int8-b128",
        "onnx-weight-int4-b32",
        "onnx-weight-int4-b64",
        "onnx-weight-int4-b128",
        "onnx-int8-s8s8",
        "onnx-int8-w7",
        "onnx-int8-cle",
        "onnx-int8-cle-bias",
        "onnx-int8-bias",
        "onnx-int8-gptq",
        "onnx-mixed",
        "onnx-auto",
        "onnx-qat-int8",
        "torch-dynamic-int8-qnnpack",
    }
)

# How the recipes end that change nothing.
AS_IS = "-as-is"
# What deploy.yaml may call an auto recipe without saying the format.
AUTO = "auto"


# Names that one looks for, and why there is no such recipe.
_NOT_MADE: Mapping[str, tuple[str, str]] = dict.fromkeys(
    ("torch-int8", "torch-static-int8", "torch-pt2e"),
    (
        "PyTorch's PT2E gives float layers between quantize and dequantize; integer ones come only from Inductor, "
        "which wants a C++ compiler on the device",
        "litert-int8 and onnx-int8 make static int8 of a PyTorch model; torch-dynamic-int8 runs in PyTorch",
    ),
)


def unknown(name: str) -> tuple[str, str]:
    """What to say of a name that is no recipe's, and what to do."""
    if name in _NOT_MADE:
        reason, hint = _NOT_MADE[name]
        return f"there is no recipe {name!r}: {reason}", hint
    return f"there is no recipe {name!r}{nearest(name, [AUTO, *RECIPES])}", "`deploy recipes` lists them"

"""Quantization recipes. A name decodes as FORMAT-PRECISION[-OPTION]:

    FORMAT      litert (.tflite), onnx (.onnx) or torch (.pt, TorchScript; of PyTorch sources)
    PRECISION   float32, float16, dynamic-int8 (int8 weights, activations quantized while running),
                int8 (weights and activations, ranges from calibration), int16x8 (int16 activations, int8 weights),
                qat-int8 (as int8, after quantization-aware fine-tuning of a Keras source),
                auto (one per op, searched to meet `budgets.max_drop` at the least cost)
    OPTION      io-int8, io-uint8: the model's own inputs and outputs are integers too (default: float32 as before)
                w4: int4 weights where the runtime has them (default: int8)
                s8s8: signed activations (default: unsigned)
                qnnpack: for PyTorch on ARM (default: its engine x86, for PCs)
                cle, bias, octav, mse: repairs, which lose less at the same precision: cross-layer equalisation, bias
                correction, weights clipped to the least error (OCTAV) or by their deviation. `litert-int8-cle-bias`
                has two of them.

`auto` alone in deploy.yaml is the auto recipe of the source's first format.

A recipe costs one module, one row here, and one line in `tests/contract/test_recipes.py`. Third parties register under
the entry-point group `edge_deploy.recipes`.
"""

from pipeline.plugins import with_entry_points

RECIPES = with_entry_points(
    {
        "litert-float32": "pipeline.recipes.float32:LITERT",
        "litert-float16": "pipeline.recipes.litert_tensorflow:FLOAT16",
        "litert-dynamic-int8": "pipeline.recipes.litert_tensorflow:DYNAMIC_INT8",
        "litert-int8": "pipeline.recipes.litert_static:INT8",
        "litert-int8-io-int8": "pipeline.recipes.litert_static:INT8_IO_INT8",
        "litert-int8-io-uint8": "pipeline.recipes.litert_static:INT8_IO_UINT8",
        "litert-int8-cle": "pipeline.recipes.litert_static:INT8_CLE",
        "litert-int8-cle-bias": "pipeline.recipes.litert_static:INT8_CLE_BIAS",
        "litert-int8-bias": "pipeline.recipes.litert_static:INT8_BIAS",
        "litert-int8-octav": "pipeline.recipes.litert_static:INT8_OCTAV",
        "litert-int8-mse": "pipeline.recipes.litert_static:INT8_MSE",
        "litert-auto": "pipeline.recipes.litert_static:AUTO",
        "litert-int8-w4": "pipeline.recipes.litert_static:INT8_W4",
        "litert-qat-int8": "pipeline.recipes.litert_static:QAT_INT8",
        "litert-qat-int8-w4": "pipeline.recipes.litert_static:QAT_INT8_W4",
        "litert-int16x8": "pipeline.recipes.litert_static:INT16X8",
        "onnx-float32": "pipeline.recipes.float32:ONNX",
        "onnx-dynamic-int8": "pipeline.recipes.onnx_dynamic:DYNAMIC_INT8",
        "onnx-int8": "pipeline.recipes.onnx_static:INT8",
        "onnx-int8-s8s8": "pipeline.recipes.onnx_static:INT8_S8S8",
        "onnx-int8-cle": "pipeline.recipes.onnx_static:INT8_CLE",
        "onnx-int8-cle-bias": "pipeline.recipes.onnx_static:INT8_CLE_BIAS",
        "onnx-int8-bias": "pipeline.recipes.onnx_static:INT8_BIAS",
        "onnx-auto": "pipeline.recipes.onnx_static:AUTO",
        "onnx-qat-int8": "pipeline.recipes.onnx_static:QAT_INT8",
        "torch-float32": "pipeline.recipes.float32:TORCH",
        "torch-dynamic-int8": "pipeline.recipes.torch_dynamic:X86",
        "torch-dynamic-int8-qnnpack": "pipeline.recipes.torch_dynamic:QNNPACK",
    },
    "edge_deploy.recipes",
)

# Not run unless deploy.yaml names them: they change the model's own inputs, are for one kind of CPU, repair, search,
# or train.
OPTIONAL = frozenset(
    {
        "litert-int8-io-int8",
        "litert-int8-io-uint8",
        "litert-int8-cle",
        "litert-int8-cle-bias",
        "litert-int8-bias",
        "litert-int8-octav",
        "litert-int8-mse",
        "litert-auto",
        "litert-int8-w4",
        "litert-qat-int8",
        "litert-qat-int8-w4",
        "onnx-int8-s8s8",
        "onnx-int8-cle",
        "onnx-int8-cle-bias",
        "onnx-int8-bias",
        "onnx-auto",
        "onnx-qat-int8",
        "torch-dynamic-int8-qnnpack",
    }
)

# What deploy.yaml may call an auto recipe without saying the format.
AUTO = "auto"

"""Fake-quantized against exported, in the worker process: both need TensorFlow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def compare(
    *, model: Path, samples: Path, scratch: Path, settings: Any, report: Callable[[int, int], None]
) -> dict[str, Any]:
    """Fine-tune, export, quantize, and run the file beside the model that was trained."""
    from pipeline.calibration.engine import LEVELS, show
    from pipeline.calibration.learned import placed
    from pipeline.calibration.litert import LiteRTObserver
    from pipeline.calibration.observer import plan
    from pipeline.exporters.keras import KerasSource, load
    from pipeline.exporters.saved_model import unpack_archive
    from pipeline.exporters.to_tflite import convert
    from pipeline.finetune.folding import folded
    from pipeline.finetune.quantized_model import quantized_model
    from pipeline.finetune.training import train
    from pipeline.recipes.recipe import Ingredients, recipe
    from pipeline.runtimes.runtime import open_model
    from pipeline.stages.finetune_jobs import _settled

    images = np.load(samples)["image"]
    plain = folded(load(model))
    quantized = quantized_model(plain, weight_bits=4)
    train(quantized, [images], None, None, settings, scratch / "checkpoint", report)
    learned = _settled(quantized, [images[:1]])
    source = KerasSource(model, scratch=scratch, model=plain)
    source.fix_shapes({"image": images[:1].shape})
    source.save(scratch / "model")
    float_model, output = scratch / "float.tflite", scratch / "int8.tflite"
    float_model.write_bytes(convert(unpack_archive(scratch / "model", scratch)))
    observer = LiteRTObserver(float_model, scratch)
    planned = plan(observer, LEVELS, 1_000_000_000)
    ranges, lost = placed(learned, lambda take: show(observer, planned, {"image": images[:1]}, take))
    # Learned ranges only: a tensor that got none of them would make the quantizer fail.
    ingredients = Ingredients(source=model, float_model=float_model, ranges=ranges, scratch=scratch)
    recipe("litert-qat-int8-w4").quantize(ingredients, output)
    exported = open_model("tflite", output)
    quantized.mode.quantizing = True
    worst = max(
        float(np.abs(exported.answer({"image": image[None]})["scores"] - quantized.model(image[None])[0]).max())
        for image in images
    )
    step = (learned[-1].high - learned[-1].low) / 255
    return {"learned": len(learned), "lost": lost, "worst_steps": worst / step, "weights": _weights(output)}


def _weights(path: Path) -> dict[str, str]:
    """Op -> data type of its weights."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    file = flatbuffer_utils.read_model(str(path))
    ops = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    types = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    graph = file.subgraphs[0]
    found = {}
    for operator in graph.operators:
        code = file.operatorCodes[operator.opcodeIndex]
        if len(operator.inputs) == 3:  # data, weights, bias
            name = ops[max(code.builtinCode, code.deprecatedBuiltinCode)]
            found[name] = types[graph.tensors[operator.inputs[1]].type]
    return found

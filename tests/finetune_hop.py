"""Fake-quantized against exported, in the worker process: both need TensorFlow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def compare(
    *, kind: str, model: Path, samples: Path, scratch: Path, settings: Any, report: Callable[[int, int], None]
) -> dict[str, Any]:
    """Fine-tune, export, quantize, and run the file beside the model that was trained."""
    from pipeline.calibration.engine import LEVELS, show
    from pipeline.calibration.learned import LearnedRange, fingerprint, placed
    from pipeline.calibration.litert import LiteRTObserver
    from pipeline.calibration.observer import plan
    from pipeline.exporters.source import Unstated, open_source
    from pipeline.finetune.settings import Origin
    from pipeline.finetune.trainee import open_trainee
    from pipeline.finetune.training import Lesson, Samples, train
    from pipeline.recipes.recipe import Ingredients, recipe
    from pipeline.runtimes.runtime import open_model

    images = np.load(samples)["image"]
    unstated = Unstated(base=scratch, factory="", shapes={}, first_sample=lambda names: {})
    given = open_source(kind, model, signature="", scratch=scratch, unstated=unstated)
    given.fix_shapes({"image": (1, *images.shape[1:])})
    given.save(scratch / "prepared")
    origin = Origin(
        kind=kind, model=model, factory="", base=scratch, prepared=scratch / "prepared",
        inputs=given.inputs, outputs=given.outputs, scratch=scratch,
    )  # fmt: skip
    trainee = open_trainee(origin, 4)
    inputs = np.concatenate([trainee.joined([image[None]]) for image in images])
    network = trainee.network(loss="", base=scratch, truths=None, calibrated={})
    train(network, Samples(inputs=[inputs], truths=None, part=2), settings, scratch, scratch / "checkpoint", report)
    ranges = trainee.settle()
    first = {"image": images[:1]}
    learned = [
        LearnedRange(name=name, low=ranges[name][0], high=ranges[name][1], holds=fingerprint(values))
        for name, values in trainee.seen(first).items()
    ]
    reference = trainee.save(first)
    float_model, output = scratch / "float.tflite", scratch / "int8.tflite"
    _export(kind, scratch / "model", float_model, scratch)
    observer = LiteRTObserver(float_model, scratch)
    planned = plan(observer, LEVELS, 1_000_000_000)
    found, lost = placed(learned, lambda take: show(observer, planned, first, take))
    # Learned ranges only: a tensor that got none of them would make the quantizer fail.
    ingredients = Ingredients(source=model, float_model=float_model, ranges=found, scratch=scratch)
    recipe("litert-qat-int8-w4").quantize(ingredients, output)
    (name,) = reference
    exported, answers = open_model("tflite", output), []
    for image in images:
        answers.append(exported.answer({"image": image[None]})[name])
    # The loss of the trained network against the file's answers, of which it is the mean squared difference.
    teacher = np.concatenate([trainee.joined([answer]) for answer in answers])
    loss = network.loss(Lesson(inputs=[inputs], teacher=[teacher], truths=None), [1.0])
    step = (learned[-1].high - learned[-1].low) / 255
    return {
        "learned": len(learned),
        "lost": lost,
        "rms_steps": loss**0.5 / step,
        "float_error": float(np.abs(open_model("tflite", float_model).answer(first)[name] - reference[name]).max()),
        "weights": _weights(output),
    }


def _export(kind: str, source: Path, output: Path, scratch: Path) -> None:
    if kind == "pytorch":
        from pipeline.exporters.torch_to_tflite import convert

        convert(source, output)
        return
    from pipeline.exporters.saved_model import unpack_archive
    from pipeline.exporters.to_tflite import convert as convert_keras

    output.write_bytes(convert_keras(unpack_archive(source, scratch)))


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

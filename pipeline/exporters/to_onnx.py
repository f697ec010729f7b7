"""SavedModel → ONNX with tf2onnx, input and output names kept."""

from pathlib import Path

import onnx
import tensorflow as tf
import tf2onnx

from pipeline.exporters.saved_model import SIGNATURE


def convert(saved_model: Path, *, opset: int) -> onnx.ModelProto:
    """Convert the (shape-fixed) SavedModel folder to a float ONNX model of the given opset."""
    loaded = tf.saved_model.load(str(saved_model))
    serve = loaded.signatures[SIGNATURE]
    inputs = dict(serve.structured_input_signature[1].items())
    ordered = list(inputs)

    def flat(*tensors: tf.Tensor) -> list[tf.Tensor]:
        answers = serve(**dict(zip(ordered, tensors, strict=True)))
        return [tf.identity(answers[name], name=name) for name in serve.structured_outputs]

    signature = [tf.TensorSpec(inputs[name].shape, inputs[name].dtype, name=name) for name in ordered]
    function = tf.function(flat, input_signature=signature)
    model: onnx.ModelProto
    model, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=opset)
    _rename(model, [value.name for value in model.graph.input], ordered)
    _rename(model, [value.name for value in model.graph.output], list(serve.structured_outputs))
    onnx.checker.check_model(model)
    return model


def _rename(model: onnx.ModelProto, old: list[str], new: list[str]) -> None:
    """Give graph inputs or outputs the names the source has for them, wherever they are used."""
    renamed = dict(zip(old, new, strict=True))
    for value in (*model.graph.input, *model.graph.output):
        value.name = renamed.get(value.name, value.name)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        for index, name in enumerate(node.output):
            node.output[index] = renamed.get(name, name)

"""Integer models of a few hundred bytes whose outputs vary with every rounding, with the host's own answers."""

from pathlib import Path

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper
from tiny_models import Bundle

from pipeline.calibration.engine import LEVELS, observe
from pipeline.calibration.observer import plan
from pipeline.calibration.onnx import OnnxObserver
from pipeline.recipes.recipe import Ingredients, recipe
from pipeline.runtimes.runtime import open_model
from pipeline.samples.sample import Sample

_INPUTS, _OUTPUTS = 64, 96
_IN, _WEIGHTS, _OUT = 0.02, 0.011, 0.013  # scales; the quotient of two by the third is no power of two


def _numbers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input, weights (one row per output) and bias, as int8, int8 and int32."""
    random = np.random.default_rng(7)
    x = random.integers(-128, 128, (1, _INPUTS), dtype=np.int8)
    weights = random.integers(-9, 10, (_OUTPUTS, _INPUTS), dtype=np.int8)
    return x, weights, random.integers(-400, 400, _OUTPUTS, dtype=np.int32)


def int8_tflite_bundle(folder: Path) -> Bundle:
    """One fully connected layer, int8 in and out."""
    x, weights, bias = _numbers()
    model = schema.ModelT()
    model.version, model.description = 3, "dense"
    model.buffers = [schema.BufferT(), *(_buffer(array) for array in (weights, bias))]
    rows = (
        ("x", [1, _INPUTS], schema.TensorType.INT8, 0, _IN),
        ("w", [_OUTPUTS, _INPUTS], schema.TensorType.INT8, 1, _WEIGHTS),
        ("b", [_OUTPUTS], schema.TensorType.INT32, 2, _IN * _WEIGHTS),
        ("y", [1, _OUTPUTS], schema.TensorType.INT8, 0, _OUT),
    )
    graph = schema.SubGraphT()
    graph.name, graph.tensors, graph.inputs, graph.outputs = "main", [_tensor(*row) for row in rows], [0], [3]
    dense = schema.OperatorT()
    dense.opcodeIndex, dense.inputs, dense.outputs = 0, [0, 1, 2], [3]
    dense.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    dense.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators = [dense]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4
    model.subgraphs, model.operatorCodes, model.signatureDefs = [graph], [code], [_signature()]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    data = bytes(builder.Output())
    y = Interpreter(model_content=data).get_signature_runner()(x=x)["y"]
    return _bundle(folder, "tflite", data, x, y)


def _buffer(array: np.ndarray) -> schema.BufferT:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(array.tobytes(), np.uint8)
    return buffer


def _tensor(name: str, shape: list[int], kind: int, buffer: int, scale: float) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, kind, buffer
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [0]
    return tensor


def _signature() -> schema.SignatureDefT:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    maps = []
    for name, index in (("x", 0), ("y", 3)):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        maps.append([entry])
    signature.inputs, signature.outputs = maps
    return signature


def int8_onnx_bundle(folder: Path) -> Bundle:
    """The same layer as one integer operator."""
    import onnxruntime

    x, weights, _ = _numbers()
    zero = np.int8(0)
    constants = {"w": weights.T.copy(), "xs": np.float32(_IN), "ws": np.float32(_WEIGHTS), "ys": np.float32(_OUT)}
    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in {**constants, "z": zero}.items()]
    node = helper.make_node("QLinearMatMul", ["x", "xs", "z", "w", "ws", "z", "ys", "z"], ["y"])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.INT8, [1, size])
        for name, size in (("x", _INPUTS), ("y", _OUTPUTS))
    ]
    graph = helper.make_graph([node], "dense", ends[:1], ends[1:], initializer=arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    (y,) = onnxruntime.InferenceSession(data).run(None, {"x": x})
    return _bundle(folder, "onnx", data, x, y)


_PICTURE = (1, 8, 80, 80)  # large enough that a path which rounds otherwise differs somewhere


def branching_onnx_model(folder: Path, recipe_name: str = "onnx-int8") -> Path:
    """A network with a shortcut and a concatenation, made int8 by our recipe.

    Its weights are large, so that neighbouring products overflow in a kernel that adds them in 16 bits.
    """
    random = np.random.default_rng(11)
    constants, nodes = [], []

    def conv(source: str, made: str, inputs: int) -> None:
        outputs = _PICTURE[1]
        sign = random.choice([-1, 1], (outputs, 1, 1, 1))  # one per output: products add up instead of cancelling
        weights = sign * random.uniform(0.5, 1, (outputs, inputs, 3, 3)) / (6 * inputs)
        for suffix, array in (("w", weights), ("b", random.normal(0, 0.1, outputs))):
            constants.append(numpy_helper.from_array(array.astype(np.float32), f"{made}_{suffix}"))
        nodes.append(helper.make_node("Conv", [source, f"{made}_w", f"{made}_b"], [made], pads=[1, 1, 1, 1]))

    conv("x", "trunk", _PICTURE[1])
    conv("trunk", "branch", _PICTURE[1])
    nodes.append(helper.make_node("Relu", ["branch"], ["relu"]))
    conv("relu", "back", _PICTURE[1])
    nodes.append(helper.make_node("Add", ["trunk", "back"], ["sum"]))
    nodes.append(helper.make_node("Concat", ["trunk", "sum"], ["both"], axis=1))
    conv("both", "y", 2 * _PICTURE[1])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, _PICTURE) for name in "xy"]
    graph = helper.make_graph(nodes, "branching", ends[:1], ends[1:], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir(parents=True, exist_ok=True)
    float_model, output = folder / "float.onnx", folder / "branching.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model), float_model)
    observer = OnnxObserver(float_model, folder)
    sample = Sample(id="x", inputs={"x": branching_input()}, truth=None, digest="00" * 32)
    seen = observe(observer, [sample], plan(observer, LEVELS, 1_000_000_000), lambda done, total: None)
    ranges = {name: (sketch.low, sketch.high) for name, sketch in seen.sketches().items()}
    ingredients = Ingredients(source=folder, float_model=float_model, ranges=ranges, scratch=folder)
    recipe(recipe_name).quantize(ingredients, output)
    return output


def branching_input() -> np.ndarray:
    return np.random.default_rng(12).uniform(-0.2, 1, _PICTURE).astype(np.float32)


def branching_onnx_bundle(folder: Path, recipe_name: str = "onnx-int8") -> Bundle:
    model, x = branching_onnx_model(folder / "made", recipe_name), branching_input()
    return _bundle(folder, "onnx", model.read_bytes(), x, open_model("onnx", model).invoke({"x": x})["y"])


def _bundle(folder: Path, form: str, model: bytes, x: np.ndarray, y: np.ndarray) -> Bundle:
    assert len(np.unique(y)) > 40, "an output that hardly varies would prove nothing"
    folder.mkdir(parents=True, exist_ok=True)
    kind = "tflite" if form == "tflite" else "onnx"
    bundle = Bundle(kind, folder / f"model.{form}", folder / "inputs.npz", folder / "expected.npz")
    bundle.model.write_bytes(model)
    np.savez(bundle.inputs, x=x)
    np.savez(bundle.expected, y=y)
    return bundle

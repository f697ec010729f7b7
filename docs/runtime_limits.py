"""Ask released runtimes what they can load, and write pipeline/fit/limits.json.

    python docs/runtime_limits.py              every version of `VERSIONS`, each installed into its own environment
    python docs/runtime_limits.py --installed  print what the runtimes of this environment say, change nothing

A `.tflite` model names its operators by code and version, and LiteRT looks all of them up before it reads the graph: a
model of nothing but one operator code tells whether that is known, as does one of nothing but a tensor for its data
type. ONNX Runtime refuses a model whose opset or IR version is newer than its own, and names operators of domains that
it does not know. All are asked, so the table holds what the binaries say and not what pages say of them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parents[1] / "pipeline" / "fit" / "limits.json"
# Releases whose limits differ from the one before, or that many apps have; the newest of each line is among them.
VERSIONS = {
    "tflite-runtime": ("2.14.0",),
    "ai-edge-litert": ("1.0.1", "1.2.0", "1.4.0", "2.1.0", "2.1.6", "2.3.0"),
    "onnxruntime": (
        *("1.15.1", "1.16.3", "1.17.3", "1.18.1", "1.19.2", "1.20.1", "1.21.1", "1.22.1"),
        *("1.23.2", "1.24.4", "1.26.0", "1.29.0", "1.32.0"),
    ),
}
_MOST_CODES = 256  # a flatbuffer's builtin codes end at 209 today
_MOST_VERSION = 40  # FULLY_CONNECTED has the highest, 14
_MOST_OPSET, _MOST_IR, _MOST_ML = 40, 20, 15
_CUSTOM_CODE = 32  # BuiltinOperator.CUSTOM
_MOST_TYPE = 40  # TensorType ends at 20
# Custom operators that published models have and a plain runtime may bring, by TensorFlow's own names.
_CUSTOM = (
    *(
        "TFLite_Detection_PostProcess",
        "AudioSpectrogram",
        "Mfcc",
        "NumericVerify",
        "RFFT2D",
        "Convolution2DTransposeBias",
    ),
    *("MaxPoolingWithArgmax2D", "MaxUnpooling2D", "Landmarks2TransformMatrix", "TransformTensorBilinear"),
)
# Operators of com.microsoft that quantizers and optimizers write.
_MICROSOFT = (
    *(
        "MatMulNBits",
        "MatMulBnb4",
        "GatherBlockQuantized",
        "QuantizeLinear",
        "DequantizeLinear",
        "MatMulIntegerToFloat",
    ),
    *(
        "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM",
        "QLinearAdd",
        "QLinearMul",
        "QLinearAveragePool",
        "QLinearConcat",
    ),
    *("QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearReduceMean", "QLinearSigmoid", "QLinearSoftmax"),
    *("QLinearWhere", "QGemm", "QAttention", "QOrderedMatMul", "QEmbedLayerNormalization", "FusedConv", "FusedGemm"),
    *("FusedMatMul", "Gelu", "BiasGelu", "FastGelu", "QuickGelu", "SkipLayerNormalization", "Attention"),
    *("SkipSimplifiedLayerNormalization", "EmbedLayerNormalization", "MultiHeadAttention", "GroupQueryAttention"),
    *("RotaryEmbedding", "NhwcMaxPool", "BiasSplitGelu", "Inverse", "GridSample", "CDist", "Trilu", "Unique"),
)

# Runs in the runtime's own environment. Versions of one operator have no holes, so the first refusal is the end.
_ASK = """
import json, os, sys
def litert(Interpreter, spec):
    found = {}
    prefix, code_at, deprecated_at, version_at = bytearray.fromhex(spec["model"]), *spec["places"]
    for code in range(spec["codes"]):
        for version in range(1, spec["versions"] + 1):
            prefix[code_at:code_at + 4] = code.to_bytes(4, "little")
            prefix[deprecated_at] = min(code, 127)
            prefix[version_at:version_at + 4] = version.to_bytes(4, "little")
            try:
                Interpreter(model_content=bytes(prefix))
            except (ValueError, RuntimeError):
                if str(code) in found or version > 3:
                    break
                continue
            found[str(code)] = version
    def loads(model):
        try:
            Interpreter(model_content=bytes.fromhex(model))
        except (ValueError, RuntimeError):
            return False
        return True
    found["type"] = max(int(n) for n, model in spec["types"].items() if loads(model))
    def resolves(model):
        child = os.fork()  # an operator without its options may end the process; then it is there
        if child == 0:
            try:
                Interpreter(model_content=bytes.fromhex(model)).allocate_tensors()
            except Exception as fault:
                os._exit("unresolved custom op" in str(fault))
            os._exit(0)
        return os.waitpid(child, 0)[1] != 256
    found.update({"custom." + name: 1 for name, model in spec["custom"].items() if resolves(model)})
    return found
def onnx(ort, spec):
    ort.set_default_logger_severity(4)
    def loads(model):
        try:
            ort.InferenceSession(bytes.fromhex(model), providers=["CPUExecutionProvider"])
        except Exception:
            return False
        return True
    def knows(model):
        try:
            ort.InferenceSession(bytes.fromhex(model), providers=["CPUExecutionProvider"])
        except Exception as fault:
            return "is not a registered function/op" not in str(fault)
        return True
    found = {kind: max(int(n) for n, model in spec[kind].items() if loads(model)) for kind in ("opset", "ir", "ml")}
    return {**found, **{name: 1 for name, model in spec["ops"].items() if knows(model)}}
name, spec = sys.argv[1], json.load(sys.stdin)
if name == "onnxruntime":
    import onnxruntime
    answer = onnx(onnxruntime, spec)
elif name == "tflite-runtime":
    from tflite_runtime.interpreter import Interpreter
    answer = litert(Interpreter, spec)
else:
    from ai_edge_litert.interpreter import Interpreter
    answer = litert(Interpreter, spec)
print("ANSWER" + json.dumps(answer))
"""


def litert_question() -> dict[str, Any]:
    """A model of one operator code and an empty graph, and where in it code and version stand; others, ready made."""
    written = _tflite(0x01020304, 0x55, 0x05060708)
    marks = (bytes((4, 3, 2, 1)), b"\x55", bytes((8, 7, 6, 5)))
    return {
        "model": written.hex(),
        "places": [written.index(mark) for mark in marks],
        "codes": _MOST_CODES,
        "versions": _MOST_VERSION,
        "types": {n: _tflite(0, 0, 1, type=n).hex() for n in range(_MOST_TYPE)},
        "custom": {name: _tflite(_CUSTOM_CODE, _CUSTOM_CODE, 1, custom=name).hex() for name in _CUSTOM},
    }


def _tflite(builtin: int, deprecated: int, version: int, *, type: int | None = None, custom: str = "") -> bytes:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    code, graph, model = schema.OperatorCodeT(), schema.SubGraphT(), schema.ModelT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, deprecated, version
    code.customCode = custom or None
    graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [], []
    if custom:
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = 0, [], []
        graph.operators = [operator]
    if type is not None:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = "only", [2], type, 0
        graph.tensors = [tensor]
    model.version, model.subgraphs, model.operatorCodes, model.buffers = 3, [graph], [code], [schema.BufferT()]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def onnx_question() -> dict[str, Any]:
    """y = x, stamped with each opset under the oldest IR version, and with each IR version under an old opset."""
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    same = helper.make_node("Identity", ["x"], ["y"])

    def model(opset: int, ir: int, microsoft: str = "", ml: int = 0) -> str:
        nodes = [helper.make_node(microsoft, [], ["z"], domain="com.microsoft")] if microsoft else []
        graph = helper.make_graph([same, *nodes], "same", value[:1], value[1:])
        imports = [helper.make_opsetid("", opset), *([helper.make_opsetid("com.microsoft", 1)] if microsoft else [])]
        imports += [helper.make_opsetid("ai.onnx.ml", ml)] if ml else []
        return str(helper.make_model(graph, opset_imports=imports, ir_version=ir).SerializeToString().hex())

    return {
        "opset": {n: model(n, 7) for n in range(13, _MOST_OPSET)},
        "ir": {n: model(13, n) for n in range(3, _MOST_IR)},
        # Refused also where no operator of it is used, and quantizers like to write it.
        "ml": {n: model(13, 7, ml=n) for n in range(1, _MOST_ML)},
        "ops": {f"com.microsoft.{name}": model(13, 7, name) for name in _MICROSOFT},
    }


def ask(python: str, name: str) -> dict[str, int]:
    """What the runtime `name` of this interpreter can load."""
    question = onnx_question() if name == "onnxruntime" else litert_question()
    done = subprocess.run(
        [python, "-c", _ASK, name],
        input=json.dumps(question),
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, int] = json.loads(done.stdout.rpartition("ANSWER")[2])
    return answer


def ask_release(name: str, version: str) -> dict[str, int]:
    """The same of a release, installed for the purpose."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        pins = ["numpy<2"] if (name, version[:2]) == ("tflite-runtime", "2.") or version < "1.19" else []
        command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", f"{name}=={version}", *pins]
        subprocess.run(command, check=True)
        return ask(python, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--installed", action="store_true", help="print what this environment's runtimes say")
    parser.add_argument("--only", choices=VERSIONS, help="ask this runtime's releases again and keep the others'")
    asked = parser.parse_args()
    if asked.installed:
        print(json.dumps({name: ask(sys.executable, name) for name in ("ai-edge-litert", "onnxruntime")}))
        return
    table: dict[str, dict[str, dict[str, int]]] = {}
    kept = json.loads(OUT.read_text(encoding="utf-8")) if asked.only else {}
    for name, versions in VERSIONS.items():
        if asked.only not in (None, name):
            table[name] = kept[name]
            continue
        for version in versions:
            print(f"{name} {version}", file=sys.stderr)
            table.setdefault(name, {})[version] = ask_release(name, version)
    OUT.write_text(written(table), encoding="utf-8")


def names(enumeration: str) -> dict[str, str]:
    """The names of operators or of data types by number, in the schema of the LiteRT that is installed here."""
    from ai_edge_litert import schema_py_generated as schema

    numbers = {value: name for name, value in vars(getattr(schema, enumeration)).items() if isinstance(value, int)}
    return {str(number): name for number, name in sorted(numbers.items())}


def written(table: dict[str, dict[str, dict[str, int]]]) -> str:
    """The table as a file that a person can compare: a line per release."""
    rows = [
        f'"operators": {json.dumps(names("BuiltinOperator"))}',
        f'"types": {json.dumps(names("TensorType"))}',
    ]
    for name, releases in table.items():
        lines = ",\n".join(f'  "{version}": {json.dumps(answer)}' for version, answer in releases.items())
        rows.append(f'"{name}": {{\n{lines}\n }}')
    return "{\n " + ",\n ".join(rows) + "\n}\n"


if __name__ == "__main__":
    main()

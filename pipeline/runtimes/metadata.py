"""What is written into a model file itself (ONNX: `metadata_props`; TFLite: a metadata buffer), by its key.

Whoever opens the file finds it there, also an application on the device.
"""

import struct
from pathlib import Path

from pipeline.records import Format

_MOST_METADATA = 1000


def read(format: Format, path: Path, key: str) -> str:
    """The text under the key; empty when there is none."""
    readers = {"tflite": _of_tflite, "onnx": _of_onnx}
    return readers[format](path, key) if format in readers else ""


def write(format: Format, path: Path, key: str, text: str) -> None:
    """Set the text under the key, unless it is there already."""
    if read(format, path, key) != text:
        (_to_tflite if format == "tflite" else _to_onnx)(path, key, text)


def _of_tflite(path: Path, key: str) -> str:
    from pipeline.fit import flatbuffer
    from pipeline.fit.records import Malformed

    try:
        model = flatbuffer.root(path.read_bytes())
        for entry in model.tables(6, _MOST_METADATA):
            if entry.text(0) == key:
                buffer = model.item(4, entry.number(1, "<I", 0))
                return buffer.text(0) if buffer else ""
    except (Malformed, struct.error, IndexError):
        return ""  # the interpreter says what is wrong with the file
    return ""


def _to_tflite(path: Path, key: str, text: str) -> None:
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(text.encode(), np.uint8)
    model.buffers.append(buffer)
    entry.name, entry.buffer = key, len(model.buffers) - 1
    model.metadata = [*(one for one in model.metadata or () if one.name not in (key, key.encode())), entry]
    flatbuffer_utils.write_model(model, str(path))


def _of_onnx(path: Path, key: str) -> str:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return str(next((entry.value for entry in model.metadata_props if entry.key == key), ""))


def _to_onnx(path: Path, key: str, text: str) -> None:
    import onnx

    from pipeline import onnx_file

    model = onnx_file.read_graph(path)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, key: text})
    onnx_file.write(model, path)

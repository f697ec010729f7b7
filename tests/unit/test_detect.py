"""What kind of model a path holds, by its content; all that we do not take is refused by its name."""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from projects import classifier

from pipeline.errors import InputError
from pipeline.exporters.detect import detect


def archive(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        for name in names:
            made.writestr(name, b"x" * 40)
    return data.getvalue()


def torch_archive(held: object) -> bytes:
    """What torch.save makes of something with no tensor in it."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        made.writestr("net/data.pkl", pickle.dumps(held, 2))
        made.writestr("net/version", b"3\n")
    return data.getvalue()


PADDING = bytes(100)
REFUSED: list[tuple[str, bytes, str]] = [
    ("empty.onnx", b"", "the file is empty"),
    ("empty.keras", b"", "the file is empty"),
    ("cut.keras", archive("config.json", "model.weights.h5", "metadata.json")[:-30], "cut off or damaged"),
    ("pointer.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "git lfs pull"),
    ("pointer.keras", b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "git lfs pull"),
    ("llama.gguf", b"GGUF\3\0\0\0" + PADDING, "GGUF"),
    ("net.param", b"7767517\n75 83\nInput data 0 1 data\n", "ncnn"),
    ("model.json", json.dumps({"modelTopology": {}, "weightsManifest": []}).encode(), "TensorFlow.js"),
    ("net.tflite", b"\x1c\0\0\0TFL3" + PADDING, "TFLite"),
    ("net.h5", b"\x89HDF\r\n\x1a\n" + PADDING, "HDF5"),
    ("old.keras", b"\x89HDF\r\n\x1a\n" + PADDING, "HDF5"),
    ("state.pt", pickle.dumps({"w": list(range(50))}, 2), "pickle"),
    ("zip.pt", torch_archive({"w": 1.5}), "PyTorch weights without the model"),
    ("damaged.pt", archive("net/data.pkl", "net/data/0", "net/version"), "its pickle is damaged"),
    ("module.pt", torch_archive(Path("m")), "a pickled module (pathlib.PosixPath)"),
    ("script.pt", archive("net/data.pkl", "net/code/__torch__.py"), "TorchScript"),
    ("net.py", b"import torch\n\ndef make():\n    pass\n", "which function makes the model: net.py:function"),
    ("net.safetensors", struct.pack("<Q", 60) + b'{"w":{"dtype":"F32"}}' + PADDING, "safetensors"),
    ("page.onnx", b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    ("noise.bin", bytes(range(256)) * 4, "no model format we know"),
    ("old.bin", b"lmgg" + PADDING, "GGML"),
    ("net.param.bin", b"\xdd\x85\x76\x00" + PADDING, "ncnn"),
    ("model.pkl", pickle.dumps({"w": list(range(50))}, 5), "pickle"),
    ("net.tar.gz", b"\x1f\x8b\x08" + PADDING, "gzip"),
    ("graph.pb", b"\x0a\x10" + PADDING, "TensorFlow graph without its folder"),
    ("tiny.onnx", b"\x08\x09", "only 2 bytes"),
    ("text.keras", b"this is not a zip archive at all", "no Keras 3 file"),
    ("other.zip", archive("readme.txt"), "a zip archive, but no Keras 3 model"),
    ("data.json", b'{"some": "other", "json": "document"}', "no model format we know"),
]


@pytest.mark.parametrize(("name", "data", "said"), REFUSED, ids=[name for name, _, _ in REFUSED])
def test_refused_by_name_with_advice(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        detect(tmp_path / name)
    assert caught.value.message.startswith(f"{tmp_path / name}: ")
    assert said in caught.value.message + caught.value.hint
    assert caught.value.hint


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "a folder without saved_model.pb"),
        ({"model.bin": PADDING, "shared_vocabulary.json": b"[]"}, "CTranslate2"),
        ({"model.json": json.dumps({"modelTopology": {}}).encode()}, "TensorFlow.js"),
        ({"saved_model.pb": b"\x08\x01"}, "no variables folder"),
        ({"saved_model.pb": b""}, "saved_model.pb: the file is empty"),
        ({"saved_model.pb": b"version https://git-lfs.github.com/spec/v1\n"}, "git-lfs pointer"),
    ],
)
def test_folders_refused(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        detect(tmp_path)
    assert caught.value.message.startswith(str(tmp_path))
    assert said in caught.value.message


def test_taken(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(classifier())
    (tmp_path / "no-suffix").write_bytes(classifier())
    (tmp_path / "net.keras").write_bytes(archive("config.json", "metadata.json", "model.weights.h5"))
    (tmp_path / "saved" / "variables").mkdir(parents=True)
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"\x08\x01")
    assert detect(tmp_path / "a.onnx") == detect(tmp_path / "no-suffix") == "onnx"
    assert detect(tmp_path / "net.keras") == "keras"
    assert detect(tmp_path / "saved") == "saved_model"
    (tmp_path / "program.pt2").write_bytes(archive("archive_format", "models/model.json"))
    (tmp_path / "weights.pth").write_bytes(torch_archive({"w": 1.5}))
    assert detect(tmp_path / "program.pt2") == detect(tmp_path / "net.py:make") == detect(tmp_path / "my.nets:make")
    assert detect(tmp_path / "weights.pth", "net.py:make") == "pytorch"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("none.pth", None, "there is no such file of weights"),
        ("net.onnx", classifier(), "no file of PyTorch weights"),
        ("pointer.pth", b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        ("module.pth", torch_archive(Path("m")), "a pickled module"),
        ("cut.pth", torch_archive({"w": 1.5})[:-30], "cut off or damaged"),
    ],
)
def test_weights_refused(tmp_path: Path, name: str, data: bytes | None, said: str) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        detect(tmp_path / name, "net.py:make")
    assert caught.value.message.startswith(f"{tmp_path / name}: ")
    assert said in caught.value.message
    assert caught.value.hint


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=200), suffix=st.sampled_from([".onnx", ".keras", ".json", ".pb", ".bin", ""]))
def test_any_bytes_are_a_kind_or_a_refusal(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(data)
    try:
        assert detect(path) in ("onnx", "keras")
    except InputError as error:
        assert str(path) in error.message
        assert error.hint

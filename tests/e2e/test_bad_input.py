"""Bad input gives one clear error that says where and what to do, exit code 2 or 3, and leaves nothing behind."""

import io
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from PIL import Image
from projects import Project, classifier, distribution, one_error, onnx_model, project, samples
from sshd import Sshd, free_port, make_key

Prepare = Callable[[Path], None]


@pytest.fixture
def here(tmp_path: Path) -> Project:
    return project(tmp_path)


def refused(here: Project, *arguments: str, status: int = 2) -> str:
    """Run, and return the error's text."""
    ran = here.run(*arguments)
    assert ran.status == status, ran.err
    assert ran.out == ""
    assert not (here.folder / "deploy-out").exists()
    assert not here.records("export")
    assert not list(here.state.glob("tmp/*"))
    return one_error(ran)


def archive(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        for name in names:
            made.writestr(name, b"x" * 40)
    return data.getvalue()


def quantized_already(op: str) -> bytes:
    if op == "MatMulInteger":
        nodes = [
            helper.make_node("DynamicQuantizeLinear", ["image"], ["q", "s", "z"]),
            helper.make_node("MatMulInteger", ["q", "w"], ["i"]),
            helper.make_node("Cast", ["i"], ["scores"], to=1),
        ]
        weights = {"w": np.ones((8, 8), np.uint8)}
    else:
        nodes = [
            helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["scores"]),
        ]
        weights = {"s": np.asarray(0.1, np.float32), "z": np.asarray(0, np.int8)}
    return onnx_model(nodes, {"image": [1, 3, 8, 8]}, {"scores": [1, 3, 8, 8]}, weights)


PADDING = bytes(100)
# The file's name, its bytes, and what the error has to say besides the name. All formats: tests/unit/test_detect.py.
MODELS: list[tuple[str, bytes, str]] = [
    ("empty.onnx", b"", "the file is empty"),
    ("cut.onnx", classifier()[:400], "cut off (400 bytes)"),
    ("cut.keras", archive("config.json", "model.weights.h5", "metadata.json")[:-30], "cut off or damaged"),
    ("pointer.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "git lfs pull"),
    ("llama.gguf", b"GGUF\3\0\0\0" + PADDING, "GGUF"),
    ("graph.pb", b"\x0a\x10" + PADDING, "frozen TensorFlow 1 graph"),
    ("diverged.onnx", classifier(weight=float("nan")), "weight 'kernel' holds 1 of 108 values that are NaN"),
]
# Already quantized: what it is told by.
QUANTIZED = {
    "QuantizeLinear": "is quantized already (it has DequantizeLinear, QuantizeLinear)",
    "MatMulInteger": "is quantized already (it has DynamicQuantizeLinear, MatMulInteger)",
}


@pytest.mark.parametrize(("name", "data", "said"), MODELS, ids=[name for name, _, _ in MODELS])
def test_a_model_that_cannot_be_used(here: Project, name: str, data: bytes, said: str) -> None:
    (here.folder / name).write_bytes(data)
    here.config["source"] = {"model": name}
    error = refused(here)
    assert f"error: {here.folder / name}: " in error
    assert said in error


@pytest.mark.parametrize("op", QUANTIZED)
def test_a_model_that_is_quantized_already_is_not_quantized_again(here: Project, op: str) -> None:
    (here.folder / "net.onnx").write_bytes(quantized_already(op))
    error = refused(here)
    assert f"error: onnx-float32: net.onnx {QUANTIZED[op]}: quantizing it again would add a second error" in error
    assert "recipes for it: onnx-as-is" in error


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("litert-int8", "not available: the one kept converter, onnx2tf, wants versions"),
        ("onnx-as-is", "is for files that are quantized already, this is a float32 source"),
    ],
)
def test_a_recipe_that_is_not_for_the_source(here: Project, recipe: str, said: str) -> None:
    assert f"error: {recipe}: {said}" in refused(here, "--recipe", recipe)


def test_a_model_that_is_not_there(here: Project) -> None:
    here.config["source"] = {"model": "nets/net.onnx"}
    error = refused(here)
    assert f"{here.folder / 'nets/net.onnx'}: there is no such model" in error
    assert "source.model in deploy.yaml" in error
    assert not here.state.exists()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "a folder without saved_model.pb"),
        ({"saved_model.pb": b"", "variables/variables.index": PADDING}, "saved_model.pb: the file is empty"),
    ],
)
def test_a_model_folder_that_cannot_be_used(here: Project, files: dict[str, bytes], said: str) -> None:
    folder = here.folder / "net"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    here.config["source"] = {"model": "net"}
    error = refused(here)
    assert f"error: {folder}" in error
    assert said in error


def test_a_saved_model_that_is_cut_off(here: Project) -> None:
    """Judged by TensorFlow itself, in the worker."""
    pytest.importorskip("tensorflow", reason="the tensorflow extra is not installed", exc_type=ImportError)
    folder = here.folder / "net"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"\x08\x01\x12\xff\x7f" + PADDING)
    here.config["source"] = {"model": "net"}
    here.config["recipes"] = ["litert-float32"]
    error = refused(here)
    assert f"{folder}: TensorFlow cannot load it: " in error
    assert len(error.splitlines()) == 2


def wrong_array(name: str, **arrays: np.ndarray[Any, Any]) -> Prepare:
    return lambda folder: np.savez(folder / name, **arrays)


def images(count: int = 2, damaged: str = "", text: bytes = b"") -> Prepare:
    def make(folder: Path) -> None:
        (folder / "photos").mkdir()
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
        if damaged:
            (folder / "photos" / damaged).write_bytes(text)

    return make


GOOD = np.random.default_rng(3).normal(size=(4, 3, 8, 8)).astype(np.float32)
WITH_NAN = GOOD.copy()
WITH_NAN[2, 1, 0, 5] = np.nan
PHOTOS = {"calibrate": "photos", "preprocess": [{"scale": "1/255"}, {"layout": "nchw"}]}

DATA: dict[str, tuple[dict[str, Any], Prepare | None, list[str]]] = {
    "missing": ({"calibrate": "gone.npz"}, None, ["/gone.npz: there is no such"]),
    "shape": ({"calibrate": "c.npz"}, wrong_array("c.npz", image=GOOD[:, :, :, :7]), ["c.npz[0]", "[1, 3, 8, 7]"]),
    "dtype": (
        {"calibrate": "c.npz"},
        wrong_array("c.npz", image=(GOOD * 9).astype(np.int32)),
        ["c.npz[0]", "is int32, the model takes float32", "`dtype: float32`"],
    ),
    "NaN": ({"calibrate": "c.npz"}, wrong_array("c.npz", image=WITH_NAN), ["c.npz[2]", "holds nan at [0, 1, 0, 5]"]),
    "constant": ({"calibrate": "c.npz"}, wrong_array("c.npz", image=np.ones_like(GOOD)), ["c.npz", "constant"]),
    "empty folder": ({"calibrate": "photos"}, images(0), ["/photos: there is no image"]),
    "unreadable image": (PHOTOS, images(2, "2.png", b"\x89PNG\r\n\x1a\nxx"), ["/photos/2.png: cannot decode"]),
    "function raises": (
        {"calibrate": "d.py:rows"},
        lambda d: (d / "d.py").write_text("def rows():\n    yield {}['image']\n"),
        ["/d.py:2: d.py:rows raised KeyError: 'image'"],
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_data_that_cannot_be_used(here: Project, case: str) -> None:
    changes, prepare, said = DATA[case]
    if prepare:
        prepare(here.folder)
    here.config["data"] |= changes
    error = refused(here)
    for words in said:
        assert words in error


def test_a_shape_for_an_input_the_model_has_not(here: Project) -> None:
    here.config["source"]["inputs"] = {"img": [1, 3, 8, 8]}
    error = refused(here)
    assert f"{here.folder / 'net.onnx'}: source.inputs names 'img', the model has image" in error


def test_a_model_that_answers_nan(here: Project) -> None:
    nodes = [helper.make_node("Log", ["image"], ["scores"])]
    (here.folder / "net.onnx").write_bytes(onnx_model(nodes, {"image": [1, 3, 8, 8]}, {"scores": [1, 3, 8, 8]}, {}))
    error = refused(here)
    assert "calibrate.npz[0]: the source model itself answers NaN or infinity in output 'scores'" in error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipes:\n- onnx-int8\nrecipes: []\n", 'deploy.yaml:6: duplicate key "recipes"'),
        ("measure:\n  wram: 1 s\n", "deploy.yaml:5: measure.wram: unknown key, did you mean 'warm'?"),
        ("budgets:\n  max_drop: {top1: 0.1}\n", "deploy.yaml:5: budgets.max_drop.top1: nothing measures this"),
    ],
)
def test_a_configuration_with_a_mistake(here: Project, text: str, said: str) -> None:
    here.write = lambda: None  # type: ignore[method-assign]
    (here.folder / "deploy.yaml").write_text(
        f"source: {{model: net.onnx}}\ndata: {{calibrate: calibrate.npz,\n  test: test.npz}}\n{text}"
    )
    error = refused(here)
    assert error.startswith(f"error: {said}")
    assert not here.state.exists()


def test_no_configuration(here: Project) -> None:
    error = refused(here, "--config", "other.yaml")
    assert "other.yaml: there is no such file" in error
    assert "deploy init" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recipe", "onnx-int9"], "there is no recipe 'onnx-int9', did you mean 'onnx-int8'?"),
        (["--recipe", "torch-int8"], "PyTorch's PT2E gives float layers between quantize and dequantize"),
        (["--recipe", "litert-int8"], "litert-int8: not available: the one kept converter, onnx2tf, wants"),
        (["--target", "lokal"], "--target lokal: no device or group is called 'lokal', did you mean 'local'?"),
    ],
)
def test_a_command_line_with_a_mistake(here: Project, arguments: list[str], said: str) -> None:
    assert said in refused(here, *arguments)


def test_a_user_metric_that_fails_is_the_users_to_mend(here: Project) -> None:
    """Not a refusal of every recipe: nothing is wrong with them."""
    (here.folder / "q.py").write_text("def f1(outputs, truth):\n    return 1 / 0\n")
    here.config["quality"] = {"metrics": ["q.py:f1"]}
    ran = here.run()
    assert ran.status == 2
    assert f"{here.folder}/q.py:2: q.py:f1 raised ZeroDivisionError" in one_error(ran)
    (here.folder / "q.py").write_text("def f1(outputs, truth):\n    return float(outputs['scores'].mean())\n")
    mended = here.run()
    assert mended.status == 0, mended.err
    assert "quantize onnx-int8" in mended.kept


def test_a_metric_without_truth(here: Project) -> None:
    here.config["quality"] = {"metrics": ["top1"]}
    ran = here.run()
    assert ran.status == 2
    assert "test.npz[0]: top1: there is no truth to compare with" in one_error(ran)


# Devices: the candidates are made and the report is written, the exit code is 3, and the reason stands on stderr.


def device_failure(here: Project, targets: dict[str, Any], *said: str) -> None:
    here.config["targets"] = targets
    ran = here.run()
    assert ran.status == 3, ran.err
    assert "Traceback" not in ran.err
    [line] = [line for line in ran.err.splitlines() if "failed: " in line and "as above" not in line]
    for words in said:
        assert words in line
    report = here.report()
    assert report["status"] == "device-error"
    assert report["chosen"] is None
    assert {path.name for path in (here.folder / "deploy-out" / "models").iterdir()} == {
        "onnx-float32.onnx",
        "onnx-int8.onnx",
    }


def test_nobody_answers(here: Project) -> None:
    port = free_port()
    device_failure(
        here,
        {"pi": {"host": "127.0.0.1", "port": port}},
        "push pi: failed: pi: nothing listens at 127.0.0.1:",
        "`port:`",
    )


def ssh_target(server: Sshd, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    target = {
        "host": "127.0.0.1",
        "port": server.port,
        "identity_file": str(server.identity),
        "known_hosts": str(server.known_hosts),
        "python": sys.executable,
        "root": str(tmp_path / "on-device"),
    }
    return {"pi": {**target, **changes}}


def test_a_host_key_nobody_vouched_for(here: Project, shared_sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "nobody").touch()
    targets = ssh_target(shared_sshd, tmp_path, known_hosts=str(tmp_path / "nobody"))
    device_failure(here, targets, "push pi: failed: pi: ", "SHA256:")


def test_a_key_the_device_does_not_take(here: Project, shared_sshd: Sshd, tmp_path: Path) -> None:
    targets = ssh_target(shared_sshd, tmp_path, identity_file=str(make_key(tmp_path / "stranger")))
    device_failure(here, targets, "push pi: failed: pi: ", "authorized_keys")


def test_a_device_over_ssh_without_faults(here: Project, shared_sshd: Sshd, tmp_path: Path) -> None:
    """So that the failures above are theirs and not the setup's."""
    here.config["targets"] = ssh_target(shared_sshd, tmp_path)
    ran = here.run()
    assert ran.status == 0, ran.err
    assert here.report()["chosen_by_target"]["pi"] in ("onnx-float32", "onnx-int8")


def test_a_device_without_a_runtime(here: Project, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    python = str(tmp_path / "bare" / "bin" / "python")
    device_failure(
        here, {"pi": {"transport": "local", "python": python}}, "no runtime for onnx", "pip install onnxruntime", python
    )


def test_a_device_without_python(here: Project) -> None:
    device_failure(
        here, {"pi": {"transport": "local", "python": "/none/python3"}}, "/none/python3 cannot be run", "`python:`"
    )


# Disks.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 kB."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no right to mount: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("left", [0, 30, 60], ids=lambda left: f"{left}kB")
def test_the_state_folder_fills_up(here: Project, small_disk: Path, left: int) -> None:
    """Wherever it happens, it is told as what it is, no recipe is blamed for it, and the run goes on afterwards."""
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        file.write(bytes((96 - left) * 1024))
    full = here.run("--state", str(small_disk / "state"), "--out", "out")
    assert full.status == 3, full.err
    assert "refused" not in full.err
    told = [line for line in full.err.splitlines() if "no space left" in line or "are free on the device" in line]
    assert len(told) == 1, full.err
    assert str(small_disk) in told[0]
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    filler.unlink()
    again = here.run("--state", str(small_disk / "state"), "--out", "out")
    assert again.status == 0, again.err
    assert set(full.done) - {"push local", "measure local", "gate", "release", "report"} <= set(again.kept)


def test_the_out_folder_fills_up(here: Project, small_disk: Path) -> None:
    full = here.run("--out", str(small_disk / "out"))
    assert full.status == 3
    error = one_error(full)
    assert "o space left" in error
    assert str(small_disk / "out") in error
    left = [path for path in (small_disk / "out").rglob("*") if path.is_file()]
    assert all(path.suffix != ".html" and not path.name.startswith(".") for path in left), left


@pytest.mark.parametrize("option", ["--out", "--state"])
def test_a_folder_that_cannot_be_made(here: Project, option: str) -> None:
    (here.folder / "file").touch()
    ran = here.run(option, "file/below")
    assert ran.status == 3
    error = one_error(ran)
    assert f"cannot write {here.folder / 'file'}" in error
    assert "Not a directory" in error or "not a directory" in error
    assert ran.done == []


# Extras and other people's packages.


_RECIPE = """
import os, shutil, sys
from dataclasses import dataclass

@dataclass(frozen=True)
class Odd:
    how: str
    summary: str = "for a test"
    format: str = "onnx"
    start: str = "float"
    tools: tuple = ()

    def quantize(self, ingredients, output):
        print("looking at the graph", flush=True)
        print("CHECK failed: rank == 4", file=sys.stderr, flush=True)
        if self.how == "abort":
            os.abort()
        if self.how == "exit":
            sys.exit(7)
        if self.how == "raise":
            raise RuntimeError("op Foo is not supported")
        if self.how == "nothing":
            return
        if self.how == "rubbish":
            output.write_bytes(b"not a model at all, only some bytes")
        if self.how == "copy":
            shutil.copyfile(ingredients.float_model, output)

    def why_float(self, op):
        return "because"

ABORT, EXIT, RAISE = Odd("abort"), Odd("exit"), Odd("raise")
NOTHING, RUBBISH, COPY = Odd("nothing"), Odd("rubbish"), Odd("copy")
"""
_ODD = ("abort", "exit", "raise", "nothing", "rubbish", "copy")


@pytest.fixture
def with_odd_recipes(here: Project, tmp_path: Path) -> Project:
    points = "".join(f"onnx-{how} = odd_recipes:{how.upper()}\n" for how in _ODD)
    distribution(tmp_path / "site", "odd_recipes_dist", f"[edge_deploy.recipes]\n{points}", {"odd_recipes": _RECIPE})
    here.env["PYTHONPATH"] = str(tmp_path / "site")
    return here


def test_a_converter_that_dies_is_a_refused_recipe_and_the_others_go_on(with_odd_recipes: Project) -> None:
    here = with_odd_recipes
    here.config["recipes"] = [f"onnx-{how}" for how in _ODD] + ["onnx-float32"]
    ran = here.run()
    assert ran.status == 0, ran.err
    assert "Traceback" not in ran.err
    found = {c["recipe"]: c for c in here.report()["candidates"]}
    reasons = {
        "onnx-abort": "quantize: the converter process died of SIGABRT",
        "onnx-exit": "quantize: the converter process exited with status 7",
        "onnx-raise": "quantize: RuntimeError: op Foo is not supported",
        "onnx-nothing": "quantize: candidate.onnx: onnxruntime does not load it",
        "onnx-rubbish": "quantize: candidate.onnx: onnxruntime does not load it",
    }
    for recipe, reason in reasons.items():
        assert found[recipe]["verdict"] == "refused"
        assert found[recipe]["reason"].startswith(reason), found[recipe]["reason"]
        assert f"quantize {recipe}: refused: {reason.removeprefix('quantize: ')}" in ran.err
    for recipe in ("onnx-abort", "onnx-exit", "onnx-raise"):
        assert "looking at the graph" in found[recipe]["last_output"]
        assert "CHECK failed: rank == 4" in found[recipe]["last_output"]
    assert {found["onnx-copy"]["verdict"], found["onnx-float32"]["verdict"]} == {"pass"}


def test_when_every_recipe_is_refused_there_is_still_a_report(with_odd_recipes: Project) -> None:
    here = with_odd_recipes
    here.config["recipes"] = ["onnx-abort", "onnx-raise"]
    ran = here.run()
    assert ran.status == 1, ran.err
    assert "Traceback" not in ran.err
    report = here.report()
    assert report["status"] == "fail"
    assert report["chosen"] is None
    assert report["reason"] == "no recipe gave a model"
    assert [c["verdict"] for c in report["candidates"]] == ["refused", "refused"]
    assert {path.name for path in (here.folder / "deploy-out").iterdir()} >= {"report.html", "report.md", "junit.xml"}


def test_a_package_whose_recipe_cannot_be_loaded(here: Project, tmp_path: Path) -> None:
    distribution(tmp_path / "site", "broken_dist", "[edge_deploy.recipes]\nonnx-broken = no_such_module:X\n", {})
    here.env["PYTHONPATH"] = str(tmp_path / "site")
    error = refused(here, status=3)
    assert "recipe onnx-broken: no_such_module:X cannot be loaded: ModuleNotFoundError" in error
    assert "edge_deploy.recipes" in error


def test_tensorflow_is_not_installed(here: Project, tmp_path: Path) -> None:
    """A Python that cannot find it, in the worker too, stands in for an installation without the extra."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import sys\nfrom importlib.abc import MetaPathFinder\n\n"
        "class Without(MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('tensorflow', 'keras', 'tf2onnx'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n\n"
        "sys.meta_path.insert(0, Without())\n"
    )
    here.env["PYTHONPATH"] = str(tmp_path / "site")
    (here.folder / "net.keras").write_bytes(archive("config.json", "model.weights.h5", "metadata.json"))
    here.config["source"] = {"model": "net.keras"}
    error = refused(here, status=3)
    assert "reading net.keras needs" in error
    assert "pip install 'edge-deploy-pipeline[tensorflow]'" in error


def test_what_a_user_keeps_in_the_out_folder_stays(here: Project) -> None:
    """The source itself may lie in a folder called models, and `--out .` is a natural thing to say."""
    (here.folder / "models").mkdir()
    (here.folder / "net.onnx").rename(here.folder / "models" / "net.onnx")
    (here.folder / "pictures").mkdir()
    (here.folder / "pictures" / "holiday.png").write_bytes(b"mine")
    here.config["source"] = {"model": "models/net.onnx"}
    samples(here.folder / "test.npz", 2, seed=5)
    assert here.run("--out", ".").status == 0
    assert (here.folder / "models" / "net.onnx").read_bytes() == classifier()
    assert (here.folder / "pictures" / "holiday.png").read_bytes() == b"mine"

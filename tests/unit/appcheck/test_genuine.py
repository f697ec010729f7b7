"""The same on what genuine tools and vendors make: aapt's manifest, zipalign's archive, compilers' libraries."""

import json
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import apps
import pytest
from apps import File, good_apk, require_tool
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.appcheck import Asked, check, manifest, read_app, runtime
from pipeline.fit.limits import first_with, lacking, limits_of
from pipeline.fit.needs import needs_of
from pipeline.fit.records import TfliteNeeds
from pipeline.plugins import versions

_ROOT = Path(__file__).resolve().parents[3]
_MANIFEST = """<manifest xmlns:android="http://schemas.android.com/apk/res/android" package="a.b">
<uses-sdk android:minSdkVersion="26" android:targetSdkVersion="35"/>
<application android:extractNativeLibs="false" android:hasCode="false"/></manifest>"""
_FRAMEWORK = "/usr/share/android-framework-res/framework-res.apk"
_SOURCE = """static const char version[] = "2.16.1"; const char* TfLiteVersion(void) { return version; }"""


def test_aapt_writes_the_manifest_and_the_archive(tmp_path: Path) -> None:
    require_tool("aapt", "aapt android-framework-res")
    (tmp_path / "AndroidManifest.xml").write_text(_MANIFEST)
    assets = tmp_path / "assets"
    assets.mkdir()
    (assets / "net.tflite").write_bytes(apps.tflite_model(filler=bytes(5000)))
    (assets / "net.onnx").write_bytes(apps.onnx_model())
    made = [str(tmp_path / "app.apk"), "-M", "AndroidManifest.xml", "-I", _FRAMEWORK, "-A", "assets"]
    subprocess.run(["aapt", "package", "-F", *made], cwd=tmp_path, check=True, capture_output=True)
    app = read_app(tmp_path / "app.apk")
    read = app.manifest
    assert isinstance(read, manifest.Manifest)
    assert (read.min_sdk, read.target_sdk, read.extract_native_libs) == (26, 35, False)
    # This is the fault that people meet: without -0 tflite, aapt compresses the model.
    assert {f.file for f in check(app, Asked()).findings if f.rule == "model-compressed"} == {"assets/net.tflite"}


def test_zipalign_agrees_about_the_archive(tmp_path: Path) -> None:
    """Debian's zipalign knows pages of 4 KB only: what it aligns is right for 32 bits, and by luck for 64."""
    require_tool("zipalign", "zipalign")
    shifted = good_apk().with_files({"lib/arm64-v8a/libapp.so": File(apps.library(), align=4)})
    raw, aligned = shifted.write(tmp_path / "raw.apk"), tmp_path / "app.apk"
    assert subprocess.run(["zipalign", "-c", "-p", "4", raw], capture_output=True).returncode == 1
    subprocess.run(["zipalign", "-p", "4", raw, aligned], check=True)
    libraries = read_app(aligned).libraries
    assert all(library.entry.offset % 4096 == 0 for library in libraries)
    wrong = {lib.entry.name for lib in libraries if lib.abi == "arm64-v8a" and lib.entry.offset % 16384}
    assert {f.file for f in check(read_app(aligned), Asked()).findings if f.rule == "zip-page-size"} == wrong


@pytest.mark.parametrize("page", [4096, 16384])
@pytest.mark.parametrize(("compiler", "abi"), [("cc", "x86_64"), ("aarch64-linux-gnu-gcc", "arm64-v8a")])
def test_compilers_write_segments_and_the_version(tmp_path: Path, compiler: str, abi: str, page: int) -> None:
    require_tool(compiler, "gcc gcc-aarch64-linux-gnu")
    (tmp_path / "tflite.c").write_text(_SOURCE)
    built = tmp_path / "libtensorflowlite_jni.so"
    flags = ["-shared", "-fPIC", "-O2", "-nostdlib", f"-Wl,-z,max-page-size={page}", "-o", str(built)]
    subprocess.run([compiler, *flags, "tflite.c"], cwd=tmp_path, check=True)
    app = apps.Built(
        {
            "AndroidManifest.xml": File(apps.axml(list(apps.TARGET_35))),
            "assets/net.tflite": File(apps.tflite_model((9, 14))),
            f"lib/{abi}/{built.name}": File(built.read_bytes(), align=16384),
        }
    )
    read = read_app(app.write(tmp_path / "app.apk"))
    assert [lib.version for lib in read.libraries] == ["2.16.1"]
    assert set(read.libraries[0].load_alignments) == {page}
    rules = {f.rule for f in check(read, Asked()).findings if f.severity == "blocking"}
    # Version 14 is newer than the first LiteRT after 2.17, so 2.16.1 surely lacks it.
    assert rules == ({"runtime-too-old", "elf-page-size"} if page == 4096 else {"runtime-too-old"})


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    require_tool("cc", "gcc")
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "tflite.c").write_text(_SOURCE)
    command = [
        "cc",
        "-shared",
        "-fPIC",
        "-O2",
        "-nostdlib",
        "-Wl,-z,max-page-size=4096",
        "-s",
        "-o",
        "a.so",
        "tflite.c",
    ]
    subprocess.run(command, cwd=folder, check=True)
    return (folder / "a.so").read_bytes()


@settings(max_examples=200, deadline=1000)
@given(damage=st.lists(st.tuples(st.integers(0, 10**5), st.integers(0, 255)), max_size=10), cut=st.integers(0, 10**5))
def test_a_damaged_library_says_a_version_or_none(compiled: bytes, damage: list[tuple[int, int]], cut: int) -> None:
    assert runtime.version_of("litert", compiled) == "2.16.1"
    damaged = bytearray(compiled)
    for place, value in damage:
        damaged[place % len(damaged)] = value
    said = runtime.version_of("litert", bytes(damaged[: cut or None]))
    assert said == "" or said[0].isdigit()


def test_the_wheels_own_libraries(tmp_path: Path) -> None:
    onnx, litert = (Path(find_spec(name).origin or "").parent for name in ("onnxruntime", "ai_edge_litert"))
    [library] = (onnx / "capi").glob("libonnxruntime.so.*")
    files = {
        "lib/x86_64/libonnxruntime.so": File(library.read_bytes(), align=16384),
        "lib/x86_64/libLiteRt.so": File((litert / "libLiteRt.so").read_bytes(), align=16384),
    }
    app = read_app(
        good_apk().without(*[n for n in good_apk().files if "lib" in n]).with_files(files).write(tmp_path / "a.apk")
    )
    found = {lib.name: (lib.runtime, lib.version) for lib in app.libraries}
    assert found["libonnxruntime.so"] == ("onnxruntime", version("onnxruntime"))
    assert found["libLiteRt.so"] == ("litert", "")  # it does not say, and no number among its strings is taken for it
    assert {f.file for f in check(app, Asked()).findings if f.rule == "elf-page-size"} == set(files)


def test_the_installed_runtimes_still_say_what_the_table_says() -> None:
    asked = subprocess.run(
        [sys.executable, _ROOT / "docs" / "runtime_limits.py", "--installed"],
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(asked.stdout)
    table = json.loads((_ROOT / "pipeline" / "fit" / "limits.json").read_text())
    for name, limits in said.items():
        known = table[name]
        installed = versions(name)[name]
        if installed in known:
            assert limits == known[installed]
        else:  # a newer or older one than we asked: within what its neighbours say
            assert all(limits.get(key, 0) >= value for key, value in next(iter(known.values())).items())
    assert said["ai-edge-litert"]["9"] >= 12 and said["onnxruntime"]["opset"] >= 23


@pytest.mark.parametrize("runtime_name", ["litert", "onnxruntime"])
def test_no_runtime_ever_took_something_back(runtime_name: runtime.RuntimeName) -> None:
    """What lets a version between two known ones be judged."""
    rows = [said for _, said in limits_of(runtime_name)]
    for older, newer in pairwise(rows):
        assert all(newer.get(key, 0) >= value for key, value in older.items())


def test_the_known_trap_of_an_old_runtime() -> None:
    """A dynamic-range model of TensorFlow 2.21 has FULLY_CONNECTED version 12, which tflite-runtime 2.14 refuses."""
    model = needs_of("tflite", apps.tflite_model((9, 12)))
    assert isinstance(model, TfliteNeeds)
    assert lacking(model, "litert", (0, 2, 14, 0)) == (("FULLY_CONNECTED version 12 (it knows 10)",), ())
    assert lacking(model, "litert", (0, 2, 16, 1)) == ((), ("FULLY_CONNECTED version 12",))
    assert lacking(model, "litert", (1, 1, 0, 1)) == ((), ())
    assert first_with(model, "litert") == "1.0.1"

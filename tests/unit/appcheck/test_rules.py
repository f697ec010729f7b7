"""A good app has no findings; each way of breaking it has its own, with the line that mends it."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import apps
import pytest
from apps import MODEL, Built, File, good_aab, good_apk

from pipeline.appcheck import Asked, Finding, check, read_app
from pipeline.appcheck.asked import Candidate, ReleasedModels

LITERT_MODEL = "assets/net.tflite"
LITERT_LIB = "lib/arm64-v8a/libtensorflowlite_jni.so"


def release(content: bytes, verdict: str = "pass", *, chosen: bool = True, targets: tuple[str, ...] = ()) -> Asked:
    """As if a run had made this model, beside one with other bytes."""
    made = {
        hashlib.sha256(content).hexdigest(): ("onnx-float32", verdict, chosen),
        "00" * 32: ("onnx-int8", "pass", not chosen),
    }
    candidates = {
        digest: Candidate(
            recipe=recipe, file=f"models/{recipe}.onnx", verdict=kind, reason="too slow", chosen=pick, targets=targets
        )
        for digest, (recipe, kind, pick) in made.items()
    }
    recipe = "onnx-float32" if chosen else "onnx-int8"
    released = ReleasedModels(path="deploy-out", name="net", chosen=recipe, candidates=candidates)
    return Asked(releases=(released,))


APP_32 = {"lib/armeabi-v7a/libapp.so": File(apps.library("armeabi-v7a", align=4096), align=4096)}
RELEASED = release(apps.onnx_model())


def found(tmp_path: Path, built: Built, asked: Asked = RELEASED) -> tuple[Finding, ...]:
    kind = "aab" if "BundleConfig.pb" in built.files else "apk"
    return check(read_app(built.write(tmp_path / f"app.{kind}")), asked).findings


def litert_apk(model: bytes | None = None, **options: bool) -> Built:
    """The good APK with a TFLite model and LiteRT instead."""
    content = apps.tflite_model() if model is None else model
    only = good_apk().without(MODEL, *(name for name in good_apk().files if name.startswith("lib/")))
    return only.with_files({LITERT_MODEL: File(content, **options), LITERT_LIB: File(apps.library(), align=16384)})


def manifest(*elements: tuple[str, dict[str, object]]) -> File:
    return File(apps.axml([("manifest", {}), *elements]), stored=False)


def sdk(least: int, target: int) -> tuple[str, dict[str, object]]:
    return ("uses-sdk", {"minSdkVersion": least, "targetSdkVersion": target})


EXTRACT_NOT: tuple[str, dict[str, object]] = ("application", {"extractNativeLibs": False})


def test_the_good_apk_has_no_findings(tmp_path: Path) -> None:
    assert found(tmp_path, good_apk()) == ()


def test_the_good_bundle_has_no_findings(tmp_path: Path) -> None:
    assert found(tmp_path, good_aab(), release(apps.tflite_model())) == ()


def _no_lib(abi: str) -> Callable[[], Built]:
    return lambda: good_apk().without(f"lib/{abi}/libonnxruntime.so")


_NNAPI = b"dex\n035\0Lorg/tensorflow/lite/nnapi/NnApiDelegate;Lorg/tensorflow/lite/gpu/GpuDelegate;"
# What is broken -> (the app, what is asked, rule, severity, file inside the app, a part of the remedy).
_BROKEN: dict[str, tuple[Callable[[], Built], Asked, str, str, str, str]] = {
    "other bytes than the release": (
        lambda: good_apk().with_files({MODEL: File(apps.onnx_model(opset=16))}),
        RELEASED, "release-missing", "blocking", "", "copy deploy-out/models/onnx-float32.onnx",
    ),
    "a candidate that failed": (
        good_apk, release(apps.onnx_model(), "fail", chosen=False),
        "release-not-passed", "blocking", MODEL, "copy deploy-out/models/onnx-int8.onnx",
    ),
    "a candidate that was not chosen": (
        good_apk, release(apps.onnx_model(), chosen=False),
        "release-not-chosen", "warning", MODEL, "copy deploy-out/models/onnx-int8.onnx",
    ),
    "a device class without numbers": (
        good_apk,
        Asked(releases=release(apps.onnx_model(), targets=("pi",)).releases, targets=("pi", "pixel")),
        "target-not-measured", "unjudged", MODEL, "deploy run --target pixel",
    ),
    "nothing to compare with": (good_apk, Asked(), "release-not-given", "warning", "", "--release deploy-out"),
    "a model of nobody": (
        lambda: good_apk().with_files({"assets/b.onnx": File(apps.onnx_model(opset=15))}),
        RELEASED, "release-model-unknown", "warning", "assets/b.onnx", "--release FOLDER",
    ),
    "compressed .tflite": (
        lambda: litert_apk(stored=False), Asked(),
        "model-compressed", "blocking", LITERT_MODEL, "noCompress += 'tflite'",
    ),
    "no glob of the bundle": (
        lambda: good_aab().with_files({"BundleConfig.pb": File(apps.bundle_config("**.jpg"))}),
        Asked(), "model-compressed", "blocking", "base/assets/net.tflite", "noCompress += 'tflite'",
    ),
    "git-lfs pointer": (
        lambda: good_apk().with_files({MODEL: File(b"version https://git-lfs.github.com/spec/v1\n")}),
        Asked(), "model-unreadable", "blocking", MODEL, "git-lfs",
    ),
    "opset too new": (
        lambda: good_apk().with_files({MODEL: File(apps.onnx_model(opset=26, ir=9))}),
        Asked(), "runtime-too-old", "blocking", MODEL, "or later",
    ),
    "IR version too new": (
        lambda: good_apk()
        .with_files({"lib/arm64-v8a/libonnxruntime.so": File(apps.ort_library("1.17.3"), align=16384)})
        .with_files({MODEL: File(apps.onnx_model(ir=10))}),
        Asked(), "runtime-too-old", "blocking", MODEL, "use ONNX Runtime 1.",
    ),
    "operator version too new": (
        lambda: litert_apk(apps.tflite_model((9, 12))),
        Asked(runtimes={"litert": "tensorflow-lite 2.14.0"}),
        "runtime-too-old", "blocking", LITERT_MODEL, "use LiteRT",
    ),
    "operator version between two known releases": (
        lambda: litert_apk(apps.tflite_model((9, 12))),
        Asked(runtimes={"litert": "tensorflow-lite 2.16.1"}),
        "runtime-version", "unjudged", LITERT_MODEL, "use LiteRT",
    ),
    "LiteRT of the bundle's dependencies too old": (
        lambda: good_aab().with_files(
            {
                "base/assets/net.tflite": File(apps.tflite_model((9, 14)), stored=False),
                "BUNDLE-METADATA/com.android.tools.build.libraries/dependencies.pb": File(
                    apps.dependencies(org_tensorflow__tensorflow_lite="2.14.0")
                ),
            }
        ),
        Asked(), "runtime-too-old", "blocking", "base/assets/net.tflite", "use LiteRT",
    ),
    "LiteRT that does not say its version": (
        litert_apk, Asked(), "runtime-version", "unjudged", LITERT_MODEL, "--runtime litert=VERSION",
    ),
    "no runtime": (
        lambda: good_apk().without(*(name for name in good_apk().files if name.startswith("lib/"))),
        Asked(), "runtime-missing", "unjudged", "", "com.microsoft.onnxruntime:onnxruntime-android",
    ),
    "TensorFlow operators": (
        lambda: litert_apk(apps.tflite_model((32, 1), custom="FlexErf")),
        Asked(), "flex-missing", "blocking", LITERT_MODEL, "tensorflow-lite-select-tf-ops",
    ),
    "custom operators": (
        lambda: litert_apk(apps.tflite_model((32, 1), custom="MyOp")), Asked(),
        "custom-ops", "warning", LITERT_MODEL, "on a device",
    ),
    "no 64-bit code": (_no_lib("arm64-v8a"), RELEASED, "abi-64-missing", "blocking", "", "arm64-v8a"),
    "runtime for one ABI only": (
        lambda: _no_lib("armeabi-v7a")().with_files(APP_32),
        RELEASED, "abi-runtime-missing", "blocking", "", "abiFilters 'arm64-v8a', 'armeabi-v7a'",
    ),
    "4 KB pages in a segment": (
        lambda: good_apk().with_files({"lib/arm64-v8a/libapp.so": File(apps.library(align=4096), align=16384)}),
        RELEASED, "elf-page-size", "blocking", "lib/arm64-v8a/libapp.so", "-Wl,-z,max-page-size=16384",
    ),
    "the same in an app that targets Android 14": (
        lambda: good_apk().with_files(
            {
                "AndroidManifest.xml": manifest(sdk(29, 34), EXTRACT_NOT),
                "lib/arm64-v8a/libapp.so": File(apps.library(align=4096), align=16384),
            }
        ),
        RELEASED, "elf-page-size", "warning", "lib/arm64-v8a/libapp.so", "-Wl,-z,max-page-size=16384",
    ),
    "text instead of a library": (
        lambda: good_apk().with_files({"lib/arm64-v8a/libapp.so": File(b"404 not found")}),
        RELEASED, "elf-unreadable", "blocking", "lib/arm64-v8a/libapp.so", "build it again",
    ),
    "4 KB pages in the archive": (
        lambda: good_apk().with_files({"lib/arm64-v8a/libapp.so": File(apps.library(), align=4096)}),
        RELEASED, "zip-page-size", "blocking", "lib/arm64-v8a/libapp.so", "zipalign -P 16 -f 4 app.apk",
    ),
    "32-bit library on no page at all": (
        lambda: good_apk().with_files({"lib/armeabi-v7a/libonnxruntime.so": File(apps.ort_library(abi="armeabi-v7a"))}),
        RELEASED, "zip-page-size", "blocking", "lib/armeabi-v7a/libonnxruntime.so", "zipalign -P 16",
    ),
    "4 KB pages asked by the bundle": (
        lambda: good_aab().with_files({"BundleConfig.pb": File(apps.bundle_config("**.tflite", page=1))}),
        Asked(), "zip-page-size", "blocking", "", "8.5.1",
    ),
    "pages not named by the bundle": (
        lambda: good_aab().with_files({"BundleConfig.pb": File(apps.bundle_config("**.tflite", page=0))}),
        Asked(), "zip-page-size", "warning", "", "bundletool build-apks",
    ),
    "compressed library that is not extracted": (
        lambda: good_apk().with_files({"lib/arm64-v8a/libonnxruntime.so": File(apps.ort_library(), stored=False)}),
        RELEASED, "lib-compressed", "blocking", "lib/arm64-v8a/libonnxruntime.so", "useLegacyPackaging = false",
    ),
    "over the budget": (
        good_apk, Asked(releases=RELEASED.releases, budget_bytes=50), "budget", "blocking", "", "choose: size",
    ),
    "over deploy.yaml's budget": (
        good_apk, Asked(releases=RELEASED.releases, model_budget_bytes=50), "budget", "blocking", MODEL, "deploy run",
    ),
    "the same model twice": (
        lambda: good_apk().with_files({"res/raw/copy.onnx": File(apps.onnx_model())}),
        RELEASED, "duplicate", "warning", MODEL, "keep one file",
    ),
    "the same model in base and a split": (
        lambda: good_aab().with_files({"camera/assets/net.tflite": File(apps.tflite_model(), stored=False)}),
        release(apps.tflite_model()), "duplicate", "warning", "base/assets/net.tflite", "the one in base",
    ),
    "NNAPI before Android 8.1": (
        lambda: good_apk().with_files(
            {"AndroidManifest.xml": manifest(sdk(24, 35), EXTRACT_NOT), "classes.dex": File(_NNAPI)}
        ),
        RELEASED, "delegate-min-sdk", "warning", "", "minSdk 27",
    ),
    "NNAPI": (
        lambda: good_apk().with_files({"classes.dex": File(_NNAPI)}),
        RELEASED, "nnapi-deprecated", "warning", "", "GPU delegate",
    ),
    "OpenCL not declared": (
        lambda: good_apk().with_files({"classes.dex": File(_NNAPI)}),
        RELEASED, "gpu-opencl-undeclared", "warning", "", '<uses-native-library android:name="libOpenCL.so"',
    ),
    "manifest of nothing": (
        lambda: good_apk().with_files({"AndroidManifest.xml": File(b"<manifest/>")}),
        RELEASED, "manifest-unreadable", "unjudged", "", "build the app again",
    ),
}  # fmt: skip


@pytest.mark.parametrize("broken", _BROKEN)
def test_what_is_broken_is_found_with_its_remedy(tmp_path: Path, broken: str) -> None:
    make, asked, rule, severity, file, remedy = _BROKEN[broken]
    matching = [f for f in found(tmp_path, make(), asked) if f.rule == rule and f.file == file]
    assert [f.severity for f in matching] == [severity]
    assert remedy in matching[0].remedy


def test_a_choice_of_nothing_may_not_ship(tmp_path: Path) -> None:
    nothing = Asked(releases=(ReleasedModels(path="deploy-out", name="net", chosen=None, candidates={}),))
    assert "release-no-choice" in {f.rule for f in found(tmp_path, good_apk(), nothing) if f.severity == "blocking"}


def test_32_bit_libraries_keep_their_4_kb_segments(tmp_path: Path) -> None:
    assert found(tmp_path, good_apk().with_files(APP_32)) == ()


def test_alignment_does_not_matter_to_libraries_that_are_extracted(tmp_path: Path) -> None:
    built = good_apk().with_files(
        {
            "AndroidManifest.xml": manifest(sdk(29, 35), ("application", {"extractNativeLibs": True})),
            "lib/arm64-v8a/libonnxruntime.so": File(apps.ort_library(), stored=False),
        }
    )
    assert found(tmp_path, built) == ()


def test_a_model_without_a_name_of_its_own_is_found_by_its_bytes(tmp_path: Path) -> None:
    app = read_app(good_apk().with_files({"assets/weights.bin": File(apps.tflite_model())}).write(tmp_path / "a.apk"))
    assert [(m.entry.name, m.format) for m in app.models] == [(MODEL, "onnx"), ("assets/weights.bin", "tflite")]


def test_a_runtime_inside_a_library_of_the_apps_own_is_found(tmp_path: Path) -> None:
    mine = apps.library(content=b"x\0VERS_1.20.1\0ORT Build Info: git-branch=x")
    built = _no_lib("arm64-v8a")().without("lib/armeabi-v7a/libonnxruntime.so")
    app = read_app(built.with_files({"lib/arm64-v8a/libmine.so": File(mine, align=16384)}).write(tmp_path / "a.apk"))
    assert [(lib.runtime, lib.version) for lib in app.libraries] == [("onnxruntime", "1.20.1")]


def test_models_of_other_formats_are_said_not_to_be_judged(tmp_path: Path) -> None:
    built = good_apk().with_files({"assets/hand.task": File(b"PK")})
    assert "assets/hand.task" in check(read_app(built.write(tmp_path / "a.apk")), RELEASED).notes[0]


def test_play_services_have_their_own_version(tmp_path: Path) -> None:
    built = (
        litert_apk()
        .without(LITERT_LIB)
        .with_files({"classes.dex": File(b"Lcom/google/android/gms/tflite/java/TfLite;")})
    )
    rules = {f.rule: f.severity for f in found(tmp_path, built, release(apps.tflite_model()))}
    assert rules == {"runtime-version": "warning"}


def test_an_asset_pack_has_its_own_limit_and_is_left_uncompressed(tmp_path: Path) -> None:
    pack = [("manifest", {}), ("module", {"type": "asset-pack"}), ("on-demand", {})]
    built = good_aab().with_files(
        {
            "BundleConfig.pb": File(apps.bundle_config()),
            "models/manifest/AndroidManifest.xml": File(apps.proto_manifest(pack)),
            "models/assets/net.tflite": File(apps.tflite_model()),
        }
    )
    compressed = {f.file for f in found(tmp_path, built, Asked()) if f.rule == "model-compressed"}
    assert compressed == {"base/assets/net.tflite"}

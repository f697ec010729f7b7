"""Can the delegates that the app uses work on the devices that it admits?

NNAPI exists from Android 8.1 (API level 27) on (https://ai.google.dev/edge/litert/android/delegates/nnapi) and is
deprecated since Android 15 (https://developer.android.com/ndk/guides/neuralnetworks/migration-guide). The GPU delegate
loads the vendor's libOpenCL.so, which an app that targets Android 12 (API level 31) must declare
(https://developer.android.com/guide/topics/manifest/uses-native-library-element); without it the delegate falls back to
OpenGL ES 3.1 compute, which came with Android 5.0 (API level 21).
"""

from collections.abc import Iterator

from pipeline.appcheck import runtime
from pipeline.appcheck.app import App, Finding, Manifest
from pipeline.appcheck.asked import Asked
from pipeline.appcheck.rules.finding import unjudged, warning
from targets.records import Absent

_NNAPI, _GPU = "org/tensorflow/lite/nnapi/NnApiDelegate", "org/tensorflow/lite/gpu/GpuDelegate"
_FIRST_NNAPI, _FIRST_GPU, _FIRST_DECLARED = 27, 21, 31


def delegates(app: App, asked: Asked) -> Iterator[Finding]:
    """minSdk and the manifest's declarations against NNAPI and the GPU delegate."""
    manifest = app.manifest
    if isinstance(manifest, Absent):
        detail = f"{manifest.reason}: minSdk, targetSdk and extractNativeLibs are not known"
        yield unjudged("manifest-unreadable", None, detail, "build the app again")
        return
    gpu = _GPU in app.classes or any(library.name in runtime.GPU_LIBRARIES for library in app.libraries)
    nnapi = _NNAPI in app.classes
    least = manifest.min_sdk or 1  # the platform's default
    if nnapi:
        detail = "uses NNAPI, which is deprecated since Android 15: new phones run it on the CPU"
        yield warning("nnapi-deprecated", None, detail, "use the GPU delegate, or none and XNNPACK on the CPU")
        yield from _too_low(manifest, least, "NNAPI", _FIRST_NNAPI)
    if gpu:
        yield from _too_low(manifest, least, "the GPU delegate", _FIRST_GPU)
        declared = any("opencl" in name.lower() for name in manifest.native_libraries)
        if (manifest.target_sdk or least) >= _FIRST_DECLARED and not declared:
            detail = f"targets API level {manifest.target_sdk} and does not declare libOpenCL.so: slower OpenGL is used"
            remedy = '<uses-native-library android:name="libOpenCL.so" android:required="false"/> in <application>'
            yield warning("gpu-opencl-undeclared", None, detail, remedy)


def _too_low(manifest: Manifest, least: int, what: str, first: int) -> Iterator[Finding]:
    if least < first:
        detail = f"minSdk is {manifest.min_sdk or 'not set'}, {what} needs API level {first}"
        remedy = f"minSdk {first}, or fall back when Build.VERSION.SDK_INT < {first}"
        yield warning("delegate-min-sdk", None, detail, remedy)

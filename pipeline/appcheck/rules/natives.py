"""Is the model's runtime in the app, for every processor the app is for?"""

from collections import defaultdict
from collections.abc import Iterator

from pipeline.appcheck import runtime
from pipeline.appcheck.app import App, Finding
from pipeline.appcheck.asked import Asked
from pipeline.appcheck.rules.finding import blocking, listed, unjudged
from pipeline.fit.records import RUNTIME_OF, RUNTIME_TITLES, RuntimeName, TfliteNeeds

PLAY_SERVICES = "com/google/android/gms/tflite"
_NEEDS_64 = {"armeabi-v7a": "arm64-v8a", "x86": "x86_64"}


def abis(app: App, asked: Asked) -> Iterator[Finding]:
    """A runtime that is there for one ABI is there for all, and 64-bit devices are served.

    An app with any library for an ABI is installed as one of that ABI, and the runtime is then looked for there only.
    Google Play takes 32-bit code only beside 64-bit code (https://developer.android.com/google/play/requirements/64-bit).
    """
    by_abi: dict[str, set[str]] = defaultdict(set)
    for library in app.libraries:
        by_abi[library.abi].add(library.name)
    filters = "build them for the same ABIs: ndk { abiFilters 'arm64-v8a', 'armeabi-v7a' } in defaultConfig {}"
    names = {library.name for library in app.libraries if library.runtime or library.name in runtime.GPU_LIBRARIES}
    for name in sorted(names):
        have = sorted(abi for abi, there in by_abi.items() if name in there)
        lack = sorted(abi for abi, there in by_abi.items() if name not in there)
        for abi in lack:
            detail = (
                f"lib/{abi}/ has {listed(sorted(by_abi[abi]), 3)}, but not {name}, which is there for {listed(have)}"
            )
            yield blocking("abi-runtime-missing", None, detail, filters)
    for narrow, wide in _NEEDS_64.items():
        if narrow in by_abi and wide not in by_abi:
            detail = f"there are libraries for {narrow} and none for {wide}"
            yield blocking(
                "abi-64-missing", None, detail, f"add '{wide}' to ndk {{ abiFilters … }} in defaultConfig {{}}"
            )


def runtimes_present(app: App, asked: Asked) -> Iterator[Finding]:
    """Every model has something in the app that can run it."""
    present = {library.runtime for library in app.libraries}
    artifacts: dict[RuntimeName, str] = {
        "litert": "com.google.ai.edge.litert:litert",
        "onnxruntime": "com.microsoft.onnxruntime:onnxruntime-android",
    }
    for name in sorted({RUNTIME_OF[model.format] for model in app.models}):
        if name in present or (name == "litert" and PLAY_SERVICES in app.classes):
            continue
        files = [model.entry.name for model in app.models if RUNTIME_OF[model.format] == name]
        detail = f"no library of {RUNTIME_TITLES[name]} is in the app, and {listed(files, 3)} needs one"
        remedy = f"implementation '{artifacts[name]}:VERSION'; if the runtime comes from elsewhere, name it: --runtime"
        if name not in asked.runtimes:
            yield unjudged("runtime-missing", None, detail, f"{remedy} {name}=VERSION")
    if not {library.name for library in app.libraries} & runtime.FLEX_LIBRARIES:
        for model in app.models:
            flex = (
                [n for n in model.needs.custom if n.startswith("Flex")] if isinstance(model.needs, TfliteNeeds) else []
            )
            if flex:
                remedy = (
                    "implementation 'org.tensorflow:tensorflow-lite-select-tf-ops:VERSION', or convert without them"
                )
                detail = f"has TensorFlow operators ({listed(flex)}), and no Flex delegate is in the app"
                yield blocking("flex-missing", model.entry, detail, remedy)

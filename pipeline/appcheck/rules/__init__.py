"""The rules: pure functions of an app and what was asked, and a sentence for each kind of finding."""

from collections.abc import Callable, Iterator, Mapping

from pipeline.appcheck.app import App, Finding
from pipeline.appcheck.asked import Asked
from pipeline.appcheck.rules.delegates import delegates
from pipeline.appcheck.rules.natives import abis, runtimes_present
from pipeline.appcheck.rules.packing import models_stored, pages, zip_alignment
from pipeline.appcheck.rules.release import released_bytes
from pipeline.appcheck.rules.size import budgets, duplicates, play_limits
from pipeline.appcheck.rules.versions import model_fits_runtime

Rule = Callable[[App, Asked], Iterator[Finding]]
RULES: tuple[Rule, ...] = (
    released_bytes,
    models_stored,
    model_fits_runtime,
    runtimes_present,
    abis,
    pages,
    zip_alignment,
    budgets,
    duplicates,
    play_limits,
    delegates,
)
# Finding's rule -> what it means. The README's table and SARIF's rule list are made of it.
SAYS: Mapping[str, str] = {
    "release-missing": "No model in the app has the bytes of the release's choice.",
    "release-not-passed": "A model in the app is a candidate that the gate did not let pass.",
    "release-not-chosen": "A model in the app passed, but another candidate was chosen.",
    "release-no-choice": "The run decided that nothing may ship.",
    "release-model-unknown": "A model in the app is of no release that was given.",
    "release-not-given": "The app has models and nothing says which run they are of.",
    "model-compressed": "A model that is memory-mapped is compressed in the APK.",
    "model-unreadable": "A model is damaged, or no model.",
    "model-fails": "A model does not load on this machine, or its answers break deploy.yaml's budgets.",
    "model-not-run": "A model could not be run on the test set, for it is of no release that was given.",
    "golden-outputs": "A model's answer to the golden sample is another one, on this machine or on a device.",
    "device-latency": "A device is slower than the budget, or its latency is not known.",
    "class-not-measured": "No device of a required class has measured the model.",
    "target-not-measured": "The model's candidate was never measured on a device that deploy.yaml names.",
    "runtime-too-old": "The runtime in the app cannot load the model.",
    "runtime-version": "Whether the runtime in the app can load the model is not known.",
    "runtime-missing": "No runtime for the model was found in the app.",
    "flex-missing": "The model has TensorFlow operators and the app no Flex delegate.",
    "custom-ops": "The model has operators that the app must register itself.",
    "abi-runtime-missing": "The runtime is there for one ABI and not for another.",
    "abi-64-missing": "There is 32-bit code without its 64-bit counterpart.",
    "elf-page-size": "A 64-bit library cannot be loaded on devices with 16 KB pages.",
    "elf-unreadable": "A library is no ELF file.",
    "zip-page-size": "A library that is mapped from the APK does not lie on a page boundary.",
    "lib-compressed": "A library is compressed although the manifest says that it is not extracted.",
    "budget": "Models are larger than the budget.",
    "duplicate": "The same model is in the app twice.",
    "play-size": "The download is over, or near, a limit of Google Play.",
    "nnapi-deprecated": "The app uses NNAPI.",
    "delegate-min-sdk": "minSdk admits devices on which a delegate does not work.",
    "gpu-opencl-undeclared": "The GPU delegate cannot use OpenCL.",
    "manifest-unreadable": "AndroidManifest.xml cannot be read.",
}

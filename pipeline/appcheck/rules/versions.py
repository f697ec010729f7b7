"""Does the runtime in the app know what the model is made of?

LiteRT refuses a model with an operator version newer than its own ("Didn't find op for builtin opcode … version …"),
ONNX Runtime one with a newer opset or IR version ("Unsupported model IR version"): on the user's phone, not at build.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.appcheck.app import App, Finding, Model
from pipeline.appcheck.asked import Asked
from pipeline.appcheck.rules.finding import blocking, listed, unjudged, warning
from pipeline.appcheck.rules.natives import PLAY_SERVICES
from pipeline.fit import limits
from pipeline.fit.records import RUNTIME_OF, RUNTIME_TITLES, OnnxNeeds, RuntimeName, TfliteNeeds
from targets.records import Absent

# Maven artifacts whose version is the runtime's; the first that a bundle lists is taken.
_ARTIFACTS: dict[RuntimeName, tuple[str, ...]] = {
    "litert": ("com.google.ai.edge.litert:litert", "org.tensorflow:tensorflow-lite"),
    "onnxruntime": (
        "com.microsoft.onnxruntime:onnxruntime-android",
        "com.microsoft.onnxruntime:onnxruntime-mobile",
    ),
}
_PREFIX = "tensorflow-lite "  # in --runtime litert=…: one of the older numbering


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A version of a runtime, and how it is known."""

    version: str
    tensorflow: bool
    source: str


def found_version(app: App, runtime: RuntimeName, asked: Asked) -> Found | None:
    """The runtime's version, by what the user says, what the bundle lists, or what the library says."""
    said = asked.runtimes.get(runtime)
    if said:
        return Found(version=said.removeprefix(_PREFIX), tensorflow=said.startswith(_PREFIX), source="--runtime")
    for artifact in _ARTIFACTS[runtime]:
        if version := app.dependencies.get(artifact):
            return Found(version=version, tensorflow=artifact.startswith("org.tensorflow"), source=artifact)
    libraries = [library for library in app.libraries if library.runtime == runtime and library.version]
    for library in sorted(libraries, key=lambda library: limits.version_key(library.version) or ()):
        # The oldest decides, should they differ.
        old = runtime == "litert" and (limits.version_key(library.version) or ())[:2] >= limits.FIRST_OLD_NUMBER
        return Found(version=library.version, tensorflow=old, source=library.entry.name)
    return None


def model_fits_runtime(app: App, asked: Asked) -> Iterator[Finding]:
    """Operators, opset and format of each model against the runtime's version."""
    for model in app.models:
        runtime = RUNTIME_OF[model.format]
        title = RUNTIME_TITLES[runtime]
        if isinstance(model.needs, Absent):
            remedy = "copy the model into the app again, whole; git-lfs pointers and web pages have its name too"
            yield blocking("model-unreadable", model.entry, model.needs.reason, remedy)
            continue
        yield from _foreign(model)
        found = found_version(app, runtime, asked)
        if found is None:
            if any(library.runtime == runtime for library in app.libraries):
                detail = f"the app's {title} does not say its version, so nobody knows whether it can load this model"
                yield unjudged("runtime-version", model.entry, detail, f"say it: --runtime {runtime}=VERSION")
            elif runtime == "litert" and PLAY_SERVICES in app.classes:
                detail = "runs on the LiteRT of Google Play services, whose version is each phone's own"
                remedy = (
                    "handle a model that does not load; `implementation 'com.google.ai.edge.litert:litert'` fixes it"
                )
                yield warning("runtime-version", model.entry, detail, remedy)
            continue
        yield from _fit(model, runtime, title, found)


def _fit(model: Model, runtime: RuntimeName, title: str, found: Found) -> Iterator[Finding]:
    name = f"{'TensorFlow Lite' if found.tensorflow else title} {found.version} ({found.source})"
    at = limits.place(runtime, found.version, tensorflow=found.tensorflow)
    if at is None:
        yield unjudged(
            "runtime-version",
            model.entry,
            f"{name} is no version that is known",
            f"say it: --runtime {runtime}=VERSION",
        )
        return
    assert not isinstance(model.needs, Absent)
    lacks, may_lack = limits.lacking(model.needs, runtime, at)
    newer = limits.first_with(model.needs, runtime) if isinstance(model.needs, TfliteNeeds | OnnxNeeds) else ""
    remedy = (
        f"use {title if ' ' not in newer else ''} {newer} or later".replace("  ", " ") if newer else "use a newer one"
    )
    if lacks:
        yield blocking("runtime-too-old", model.entry, f"{name} cannot load it: it needs {listed(lacks)}", remedy)
    elif may_lack:
        detail = f"nobody knows whether {name} can load it: it needs {listed(may_lack)}"
        yield unjudged("runtime-version", model.entry, detail, f"{remedy}, or try it on a device and keep it there")


def _foreign(model: Model) -> Iterator[Finding]:
    """Operators that no plain runtime has."""
    if isinstance(model.needs, TfliteNeeds):
        names = [name for name in model.needs.custom if not name.startswith("Flex")]
    else:
        known = ("com.microsoft", "ai.onnx.ml", "com.microsoft.nchwc", "ai.onnx.preview.training", "ai.onnx.training")
        names = [d for d in model.needs.domains if d not in known] if isinstance(model.needs, OnnxNeeds) else []
    if names:
        detail = f"has custom operators ({listed(names)}); whether the app registers them cannot be seen from outside"
        yield warning("custom-ops", model.entry, detail, "run it once on a device, in the app as it will be released")

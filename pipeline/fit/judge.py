"""Does the model fit the device? Pure: what the file needs and what was probed in, the answer with its reasons out."""

from collections.abc import Iterator, Sequence

from pipeline.fit import limits
from pipeline.fit.processors import known_bad, slow
from pipeline.fit.records import Answer, Described, Fit, OnnxNeeds, Reason, RuntimeName, TfliteNeeds
from pipeline.fit.wheels import available
from pipeline.quantities import size
from targets.records import Absent, Facts

# In the order in which the agent takes them.
RUNTIMES = {"tflite": ("ai-edge-litert", "tflite-runtime"), "onnx": ("onnxruntime",)}
# Releases built against NumPy 1 end below these versions: with NumPy 2 they cannot be imported.
_BUILT_FOR_NUMPY_1 = {"tflite-runtime": (99,), "ai-edge-litert": (1, 1), "onnxruntime": (1, 19)}
# Operators of com.microsoft that were not asked for, and what ONNX Runtime writes for itself.
_KNOWN_DOMAINS = ("com.microsoft", "com.microsoft.nchwc", "ai.onnx.ml")
_UNPREPARED = {"no-runtime", "import", "numpy", "known-bad"}
_MOST_NAMED = 5  # of what a runtime lacks
_TIGHT_SHARE = 0.5  # of the memory that is free: the runtime itself and its kernels' scratch space come on top
_ADDRESSES_32_BIT_BYTES = 3 * 10**9  # what a process has of 32 bits' four
_HALF_WORDS = ("armv7l", "armv6l", "i686")


def runtime_of(model: Described, facts: Facts) -> tuple[str, str] | None:
    """The distribution that would run the model there, and its version: the first that is known to live."""
    found = [(name, facts.runtimes[name]) for name in RUNTIMES[model.format] if name in facts.runtimes]
    return next((pair for pair in found if not facts.imports.get(pair[0])), found[0] if found else None)


def place_of(runtime: str, version: str, facts: Facts) -> limits.Key | None:
    """Where it stands among the releases that were asked."""
    name: RuntimeName = "onnxruntime" if runtime == "onnxruntime" else "litert"
    key = limits.version_key(version) or ()
    # Without Python the version is what an app's own library says, and older ones say TensorFlow's number.
    from_app = not facts.python and limits.FIRST_OLD_NUMBER <= key[:2] <= limits.LAST_TENSORFLOW
    return limits.place(name, version, tensorflow=runtime == "tflite-runtime" or (name == "litert" and from_app))


# Custom operators that a delegate takes as a whole, so that the runtime's own list does not have them.
_OF_XNNPACK = frozenset({"Convolution2DTransposeBias"})


def judge(model: Described, facts: Facts) -> Fit:
    """The answer for the file as it is; the caller may lower it where every blocking reason is `lowerable`."""
    found = runtime_of(model, facts)
    reasons = [*(_without(model, facts) if found is None else _with(model, facts, *found)), *_room(model, facts)]
    return Fit(
        target=facts.target,
        answer=_answer(reasons),
        runtime=" ".join(found) if found else "",
        memory_bytes=model.size_bytes + model.activation_bytes,
        reasons=tuple(reasons),
    )


def is_unprepared(fit: Fit) -> bool:
    """Whether it is the device alone that stands in the way, and could be set right: no verdict on the model."""
    return {reason.code for reason in fit.reasons if reason.weight in ("no", "lowerable")} <= _UNPREPARED


def is_lowerable(fit: Fit) -> bool:
    """Whether another file for the same model may fit."""
    weights = {reason.weight for reason in fit.reasons}
    return "lowerable" in weights and "no" not in weights


def _answer(reasons: Sequence[Reason]) -> Answer:
    weights = {reason.weight for reason in reasons}
    return "no" if weights & {"no", "lowerable"} else "unsure" if "unsure" in weights else "fits"


def _without(model: Described, facts: Facts) -> Iterator[Reason]:
    names = RUNTIMES[model.format]
    for name in names:
        if facts.python and (version := available(name, facts)):
            more = " 'numpy<2'" if name == "tflite-runtime" else ""
            yield Reason(
                code="no-runtime",
                weight="no",
                detail=f"there is no runtime for {model.format}",
                remedy=f"`deploy targets provision {facts.target}`, or there: {_pip(facts)} {name}=={version}{more}",
            )
            return
    where = f"{facts.arch} with Python {facts.python} and {facts.libc}" if facts.python else f"{facts.os}, {facts.arch}"
    yield Reason(
        code="no-wheel",
        weight="no",
        detail=f"there is no runtime for {model.format}, and PyPI has no wheel of {' or '.join(names)} for {where}",
        remedy="take the other format, another Python there, or a wheel that you build yourself",
    )


def _with(model: Described, facts: Facts, runtime: str, version: str) -> Iterator[Reason]:
    name = f"{runtime} {version}"
    trouble = facts.imports.get(runtime, "")
    if trouble:
        yield Reason(code="import", weight="no", detail=f"{name}: {trouble}", remedy=_reinstall(runtime, facts))
    key, bound = limits.version_key(version), _BUILT_FOR_NUMPY_1[runtime]
    numpy = limits.version_key(facts.numpy)
    if key and key < bound and numpy and numpy[0] >= 2 and not trouble and facts.imports.get(runtime) is None:
        detail = f"{name} was built for NumPy 1 and there is NumPy {facts.numpy}"
        yield Reason(
            code="numpy",
            weight="no",
            detail=detail,
            remedy=f"`deploy targets provision {facts.target}`, or there: pip install 'numpy<2'",
        )
    yield from known_bad(runtime, version, facts)
    yield from _foreign(model)
    place = place_of(runtime, version, facts)
    if place is None:
        yield Reason(
            code="runtime-version",
            weight="unsure",
            detail=f"{name} is no release that is known",
            remedy="it is sent and tried; the benchmark tells",
        )
    else:
        yield from _versions(model, facts, name, place)
    yield from slow(model, runtime, facts)


def _versions(model: Described, facts: Facts, name: str, place: limits.Key) -> Iterator[Reason]:
    kind: RuntimeName = "litert" if model.format == "tflite" else "onnxruntime"
    lacks, may_lack = limits.lacking(model.needs, kind, place)
    first = limits.first_with(model.needs, kind)
    package = RUNTIMES[model.format][0]
    newest = available(package, facts)
    if not first:
        remedy = "no release that was asked loads it: take another recipe"
    elif newest or not facts.python:
        remedy = f"install {package} {first} or later there" if " " not in first else f"install {package} there"
    else:
        remedy = f"PyPI has no {package} for {facts.arch} with Python {facts.python}: take another recipe"
    silent = isinstance(model.needs, TfliteNeeds) and bool(model.needs.unstamped)
    if lacks:
        needs = f"{package} {first} or later" if first and " " not in first else "a newer runtime"
        listed = ", ".join(lacks[:_MOST_NAMED]) + (
            f" and {len(lacks) - _MOST_NAMED} more" if lacks[_MOST_NAMED:] else ""
        )
        detail = f"{listed} {'needs' if len(lacks) == 1 else 'need'} {needs}, there is {name}"
        yield Reason(code="runtime-too-old", weight="lowerable", detail=detail, remedy=remedy)
    if lacks and silent:
        detail = "the file does not say what it needs: an older runtime takes it and may answer wrong"
        yield Reason(code="unstamped", weight="note", detail=detail)
    if may_lack:
        detail = f"it is not known whether {name} has {', '.join(may_lack)}"
        yield Reason(code="runtime-version", weight="unsure", detail=detail, remedy=remedy)


def _foreign(model: Described) -> Iterator[Reason]:
    """Operators that are neither TFLite's nor ONNX's."""
    if isinstance(model.needs, TfliteNeeds):
        flex = [name for name in model.needs.custom if name.startswith("Flex")]
        own = sorted(set(model.needs.custom) - set(flex) - limits.custom_ops() - _OF_XNNPACK)
        if delegated := sorted(_OF_XNNPACK & set(model.needs.custom)):
            yield Reason(
                code="custom-ops",
                weight="unsure",
                detail=f"{', '.join(delegated)} is no operator of the runtime; XNNPACK of newer ones computes it",
                remedy="`deploy run` tries it there; ai-edge-litert 2.3 has it, tflite-runtime 2.14 has not",
            )
        if flex:
            yield Reason(
                code="flex-ops",
                weight="no",
                detail=f"TensorFlow's operators ({', '.join(flex[:3])}) need the Flex delegate, which no wheel has",
                remedy="convert without SELECT_TF_OPS",
            )
        if own:
            yield Reason(
                code="custom-ops",
                weight="no",
                detail=f"custom operators ({', '.join(own[:3])}) that the wheels do not have",
                remedy="run it in the application that registers them",
            )
    elif isinstance(model.needs, OnnxNeeds):
        others = [domain for domain in model.needs.domains if domain not in _KNOWN_DOMAINS]
        if others:
            yield Reason(
                code="custom-ops",
                weight="no",
                detail=f"operators of {', '.join(others[:3])}, which ONNX Runtime has only with a library of yours",
                remedy="export it without them",
            )


def _room(model: Described, facts: Facts) -> Iterator[Reason]:
    """Disk and memory. What is needed is weights and activations: the least it can be."""
    if model.size_bytes > facts.free_disk_bytes:
        detail = f"the file has {size(model.size_bytes)}, free on its disk are {size(facts.free_disk_bytes)}"
        yield Reason(code="disk", weight="no", detail=detail, remedy="make room there, or take a smaller recipe")
    needed = model.size_bytes + model.activation_bytes
    free = facts.available_memory_bytes
    if not isinstance(free, Absent) and needed > _TIGHT_SHARE * free:
        what = f"{size(needed)} for weights and activations of {size(free)} free memory"
        if needed > free:
            yield Reason(code="memory", weight="no", detail=f"needs {what}", remedy="take a smaller recipe or input")
        else:
            yield Reason(code="memory", weight="note", detail=f"memory is tight: {what}")
    if facts.arch in _HALF_WORDS and needed > _ADDRESSES_32_BIT_BYTES:
        detail = f"{size(needed)} are more than a process of 32 bits can have"
        yield Reason(code="memory", weight="no", detail=detail, remedy="use a 64-bit system there")


def _pip(facts: Facts) -> str:
    return f"{facts.executable or 'python3'} -m pip install"


def _reinstall(runtime: str, facts: Facts) -> str:
    if runtime == "tflite-runtime" or "numpy" in facts.imports.get(runtime, "").lower():
        return f"there: pip install --force-reinstall {runtime} 'numpy<2'"
    return f"there: pip install another release of {runtime} than {facts.runtimes[runtime]}"

"""What is measured: a recipe's candidate, or the model of a release for a class of devices."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pipeline.config_file import LoadedConfig
from pipeline.errors import ConversionFailed, InputError, nearest
from pipeline.flow import Observer, Step, execute
from pipeline.records import Artifact, Format, Quality, Refusal
from pipeline.release.bundle import SUFFIX, Bundle
from pipeline.stages.context import Context
from pipeline.stages.run import candidate_steps
from pipeline.store import Store
from pipeline.worker import Worker
from targets.records import BenchRequest, TargetSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model with one sample and the host's answer to it, as files named by their digests."""

    name: str
    format: Format
    blob: str
    inputs: str
    expected: str
    paths: Mapping[str, Path]  # by digest
    beside: tuple[str, ...] = ()  # files that the model wants in its folder

    def files(self) -> Mapping[str, Path]:
        """The host's files by role, as `Device.bench` takes them."""
        roles = {"blob": self.blob, "inputs": self.inputs, "expected": self.expected}
        return {role: self.paths[digest] for role, digest in {**roles, **{one: one for one in self.beside}}.items()}

    def request(self, target: TargetSpec, how: "How") -> BenchRequest:
        """The benchmark of this model in one process."""
        return BenchRequest(
            blob=self.blob,
            format=self.format,
            inputs=self.inputs,
            expected=self.expected,
            beside=self.beside,
            threads=how.threads or target.threads,
            warm_max_s=how.block_s,
            warm_min_samples=how.min_samples,
            warm_max_samples=how.max_samples,
            pause_s=how.pause_s,
            cpus=how.cpus,
            governor=how.governor,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How each process measures."""

    block_s: float = 1.0
    min_samples: int = 3
    max_samples: int = 2000
    threads: int = 0  # 0: the target's
    pause_s: float = 0.0
    cpus: tuple[int, ...] = ()
    governor: str = ""


def candidates(
    loaded: LoadedConfig,
    store: Store,
    names: Sequence[str],
    watching: Callable[[Sequence[Step]], AbstractContextManager[Observer]],
) -> dict[str, Subject]:
    """The candidates of these recipes, made where they are not there yet.

    Raises ConversionFailed for a recipe that is refused, and what `deploy run` raises before it measures.
    """
    with Worker() as worker:
        ordered, wanted = candidate_steps(Context(loaded=loaded, store=store, worker=worker), names)
        with watching(ordered) as observer:
            results = execute(ordered, store, observer)
    return {name: _subject(name, results[made], results[judged], store) for name, (made, judged) in wanted.items()}


def float_base(recipe: str) -> str:
    """The recipe of the float model that this one was made from; empty when it is none of ours."""
    from pipeline.recipes import RECIPES
    from pipeline.recipes.grammar import float_of

    name = float_of(recipe)
    return name if name in RECIPES else ""


def is_release(text: str) -> bool:
    """Whether this means a bundle file and no recipe; a recipe's name has no such ending."""
    return text.endswith(SUFFIX)


def released(bundle: Bundle, device_class: str) -> Subject:
    """A release's model for this class of devices, with its first golden sample; its files live as long as `bundle`.

    Raises:
        InputError: the release has no model for the class.
        BundleRefused: its file has changed since it was opened.
    """
    model = bundle.classes.get(device_class)
    if model is None:
        raise InputError(
            f"{bundle.path}: has no model for the class {device_class!r}{nearest(device_class, bundle.classes)}",
            hint=f"it has {', '.join(bundle.classes)}; a target's `class:` in deploy.yaml chooses one",
        )
    if not model.golden:
        raise InputError(f"{bundle.path}: has no golden sample to measure with", hint="make it again with `deploy run`")
    golden = model.golden[0]
    digests = (model.blob, golden.inputs, golden.expected, *model.beside)
    return Subject(
        name=f"{bundle.name} {bundle.sequence} ({model.recipe})",
        format=model.format,
        blob=digests[0],
        inputs=digests[1],
        expected=digests[2],
        beside=digests[3:],
        paths={digest: bundle.blob(digest) for digest in digests},
    )


def _subject(name: str, artifact: Artifact | Refusal, quality: Quality | Refusal, store: Store) -> Subject:
    for part in (artifact, quality):
        if isinstance(part, Refusal):
            raise ConversionFailed(f"{name}: {part.reason}", hint=part.hint)
    assert isinstance(artifact, Artifact) and isinstance(quality, Quality)
    digests = (artifact.blob, quality.golden_inputs, quality.golden_outputs, *artifact.beside)
    return Subject(
        name=name,
        format=artifact.format,
        blob=digests[0],
        inputs=digests[1],
        expected=digests[2],
        beside=digests[3:],
        paths={digest: store.path(digest) for digest in digests},
    )

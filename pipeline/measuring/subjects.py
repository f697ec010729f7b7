"""What is measured: a recipe's candidate, or the model of a release for a class of devices."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pipeline.config_file import LoadedConfig
from pipeline.errors import ConversionFailed
from pipeline.flow import Observer, Step, execute
from pipeline.records import Artifact, Format, Quality, Refusal
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

    def files(self) -> Mapping[str, Path]:
        """The host's files by role, as `Device.bench` takes them."""
        return {role: self.paths[getattr(self, role)] for role in ("blob", "inputs", "expected")}

    def request(self, target: TargetSpec, how: "How") -> BenchRequest:
        """The benchmark of this model in one process."""
        return BenchRequest(
            blob=self.blob,
            format=self.format,
            inputs=self.inputs,
            expected=self.expected,
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


def _subject(name: str, artifact: Artifact | Refusal, quality: Quality | Refusal, store: Store) -> Subject:
    for part in (artifact, quality):
        if isinstance(part, Refusal):
            raise ConversionFailed(f"{name}: {part.reason}", hint=part.hint)
    assert isinstance(artifact, Artifact) and isinstance(quality, Quality)
    digests = (artifact.blob, quality.golden_inputs, quality.golden_outputs)
    return Subject(
        name=name,
        format=artifact.format,
        blob=digests[0],
        inputs=digests[1],
        expected=digests[2],
        paths={digest: store.path(digest) for digest in digests},
    )

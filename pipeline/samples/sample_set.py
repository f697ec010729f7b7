"""Opening a set of samples: the one place where preprocessing happens."""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import InputError, UsageError
from pipeline.records import DataSummary
from targets.records import TensorSpec

from .batching import without_batch
from .checks import fit
from .preprocess import apply_steps
from .sample import Array, Raw, Sample, digest_arrays
from .screening import Screening
from .source import Source, open_source
from .spec import DataSpec


class SampleSet:
    """Preprocessed, checked samples, made anew on every pass, one in memory at a time.

    Iteration raises InputError for a sample the model cannot take, and for one that changed since it was scanned.
    """

    def __init__(self, spec: DataSpec, signature: Sequence[TensorSpec], source: Source) -> None:
        self._spec = spec
        self._signature = tuple(signature)
        self._tensors = {tensor.name: tensor for tensor in signature}
        self._source = source
        self._indices = _chosen(len(source), spec)
        self._summary: DataSummary | None = None
        self._digests: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[Sample]:
        for raw in self._source.read(self._indices):
            sample = self._make(raw, [])
            if self._digests.get(sample.id, sample.digest) != sample.digest:
                raise InputError(
                    f"{sample.id}: changed between two passes over the data",
                    hint="leave the data alone during a run; a function must yield the same samples every time",
                )
            yield sample

    def first_raw(self) -> tuple[Raw, Path | None]:
        """The first sample before any step, and the file that holds it alone, where there is one."""
        (raw,) = self._source.read(self._indices[:1])
        file_of = getattr(self._source, "file", None)
        return raw, file_of(self._indices[0]) if file_of else None

    def summary(self) -> DataSummary:
        """Return what the set is; the first call reads every sample once. InputError when it is no good."""
        if self._summary is None:
            self._summary = self._scan()
        return self._summary

    def digests(self) -> Mapping[str, str]:
        """Return sample id -> digest of the preprocessed inputs, in order; scans like `summary`."""
        self.summary()
        return dict(self._digests)

    def _scan(self) -> DataSummary:
        screening, whole, digests = Screening(self._spec.path), hashlib.sha256(), dict[str, str]()
        for raw in self._source.read(self._indices):
            notes: list[str] = []
            sample = self._make(raw, notes)
            screening.add(sample.id, sample.inputs, sample.digest, notes)
            digests[sample.id] = sample.digest
            # The right answers belong to what the set is: other labels, other scores.
            truth = "" if sample.truth is None else digest_arrays({"truth": sample.truth})
            whole.update(f"{sample.digest}{truth}\n".encode())
        findings = screening.findings()
        self._digests = digests
        return DataSummary(
            path=self._spec.path,
            digest=whole.hexdigest(),
            preprocess=self._spec.preprocess_digest(),
            count=len(digests),
            sample_ids=tuple(digests),
            findings=findings,
        )

    def _make(self, raw: Raw, notes: list[str]) -> Sample:
        inputs: dict[str, Array] = {}
        for name, array in raw.inputs.items():
            if name not in self._tensors:
                inputs[name] = array  # reported by the check against the signature
                continue
            array, batch = without_batch(raw.id, self._tensors[name], array)
            try:
                made = apply_steps(self._spec.steps(name), array)
                inputs[name] = made[None] if batch else made
            except ValueError as error:
                raise InputError(
                    f"{raw.id}: input {name!r}: {error}", hint="change the steps of `preprocess`, or this sample"
                ) from error
        fitted, noted = fit(raw.id, inputs, self._signature)
        notes.extend(noted)
        if raw.truth is not None and np.issubdtype(raw.truth.dtype, np.floating) and np.isnan(raw.truth).any():
            raise InputError(f"{raw.id}: the truth holds NaN", hint="mend the truth, or remove this sample")
        return Sample(id=raw.id, inputs=fitted, truth=raw.truth, digest=digest_arrays(fitted))


def _chosen(count: int, spec: DataSpec) -> Sequence[int]:
    if spec.limit is None or spec.limit >= count:
        return range(count)
    # random.Random promises one sequence per seed over Python versions; numpy's choice does not.
    return sorted(random.Random(spec.seed).sample(range(count), spec.limit))


def open_samples(spec: DataSpec, signature: tuple[TensorSpec, ...], base: Path) -> SampleSet:
    """Open the samples of `spec` for a model with these inputs; relative paths start at `base`.

    Raises InputError or UsageError for what can be told without reading every sample; the rest comes when iterating.
    """
    names = [tensor.name for tensor in signature]
    if isinstance(spec.preprocess, dict):
        for name in spec.preprocess:
            if name not in names:
                raise UsageError(f"preprocess: the model has no input {name!r}", hint=f"it has {', '.join(names)}")
    elif spec.preprocess and len(names) > 1:
        raise UsageError(
            f"preprocess: the model has {len(names)} inputs", hint=f"give each its own list: {{{names[0]}: [...], …}}"
        )
    return SampleSet(spec, signature, open_source(spec, signature, base))


def first_arrays(spec: DataSpec, names: Sequence[str], base: Path) -> dict[str, Array]:
    """The first sample's arrays after their steps, for a model that says nothing of its inputs but their names.

    Without that nothing tells a batch axis from another one: the arrays are taken to have none.
    """
    unknown = tuple(TensorSpec(name=name, shape=(-1, -1), dtype="float32") for name in names)
    raw = next(iter(open_source(spec, unknown, base).read([0])))
    lacking = [name for name in names if name not in raw.inputs]
    if lacking:
        raise InputError(f"{raw.id}: the input {lacking[0]!r} is missing", hint=f"the model takes {', '.join(names)}")
    try:
        return {name: apply_steps(spec.steps(name), raw.inputs[name]) for name in names}
    except ValueError as error:
        raise InputError(f"{raw.id}: {error}", hint="change the steps of `preprocess`, or this sample") from error


def check_disjoint(calibrate: Mapping[str, str], test: Mapping[str, str]) -> None:
    """Refuse sets that share a sample; both are `SampleSet.digests()`, id -> digest.

    A model scored on what it was calibrated on looks better than it is. InputError names both ids of a shared sample.
    """
    by_digest = {digest: sample for sample, digest in calibrate.items()}
    shared = [(by_digest[digest], sample) for sample, digest in test.items() if digest in by_digest]
    if shared:
        more = f" (and {len(shared) - 1} more)" if len(shared) > 1 else ""
        raise InputError(
            f"the calibration sample {shared[0][0]} is the test sample {shared[0][1]}{more}",
            hint="take the shared samples out of one of the two sets",
        )

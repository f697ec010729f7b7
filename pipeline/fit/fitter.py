"""Look at a model file, judge it for a device, and lower it where that is what it takes."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pipeline.errors import ConversionFailed
from pipeline.fit.judge import is_lowerable, judge, place_of, runtime_of
from pipeline.fit.limits import Key
from pipeline.fit.processors import known_bad
from pipeline.fit.records import Described, Fit, Lowered, Reason, Rewritten
from pipeline.store import Store
from pipeline.worker import Worker
from targets.device import Device
from targets.records import Facts


def probed(device: Device) -> Facts:
    """The device's facts. Its runtimes are tried only where one is known to end the process: it takes seconds."""
    facts = device.facts()
    if any(reason for name, version in facts.runtimes.items() for reason in known_bad(name, version, facts)):
        return replace(facts, imports=device.try_runtimes())
    return facts


class Fitter:
    """Judges files for devices; what it found of a file and a runtime it keeps for the next device.

    Args:
        worker: where files are read and run.
        store: where lowered files and their answers are kept.
        scratch: a folder for one job.
    """

    def __init__(self, worker: Worker, store: Store, scratch: Callable[[], AbstractContextManager[Path]]) -> None:
        self._worker, self._store, self._scratch = worker, store, scratch
        self._described: dict[Path, Described] = {}
        self._lowered: dict[tuple[Path, Key], tuple[Lowered, Described] | ConversionFailed] = {}

    def fit(
        self, model: Path, facts: Facts, *, format: Literal["tflite", "onnx", ""] = "", golden: Path | None = None
    ) -> Fit:
        """Whether the file fits the device that `facts` are of, as it is or lowered.

        Args:
            format: empty is told by the file itself.
            golden: inputs of one real sample, to compare a lowered file's answers with.

        Raises:
            InputError: it is no whole model.
            ConversionFailed: it cannot be read.
        """
        described = self._describe(model, format)
        fit = judge(described, facts)
        found = runtime_of(described, facts)
        place = place_of(*found, facts) if found else None
        if place is None or not is_lowerable(fit):
            return fit
        try:
            lowered, now = self._lower(model, described, place, golden)
        except ConversionFailed as error:
            reason = Reason(code="not-lowered", weight="no", detail=error.message, remedy=error.hint)
            return replace(fit, reasons=(*fit.reasons, reason))
        again = judge(now, facts)
        if again.answer == "no":
            return replace(fit, reasons=(*fit.reasons, *(r for r in again.reasons if r not in fit.reasons)))
        return replace(fit, answer="lowering", lowered=lowered, memory_bytes=again.memory_bytes)

    def _describe(self, model: Path, format: str) -> Described:
        if model not in self._described:
            self._described[model] = self._worker.call("pipeline.fit.describe:describe", model=model, format=format)
        return self._described[model]

    def _lower(self, model: Path, described: Described, at: Key, golden: Path | None) -> tuple[Lowered, Described]:
        if (model, at) not in self._lowered:
            try:
                self._lowered[model, at] = self._rewrite(model, described, at, golden)
            except ConversionFailed as error:
                self._lowered[model, at] = error
        found = self._lowered[model, at]
        if isinstance(found, ConversionFailed):
            raise found
        return found

    def _rewrite(self, model: Path, described: Described, at: Key, golden: Path | None) -> tuple[Lowered, Described]:
        with self._scratch() as folder:
            output, answers = folder / f"lowered.{described.format}", folder / "answers.npz"
            made: Rewritten = self._worker.call(
                "pipeline.fit.lower:lower",
                format=described.format,
                model=model,
                at=at,
                output=output,
                golden=golden,
                golden_output=answers,
            )
            now = self._worker.call("pipeline.fit.describe:describe", model=output, format=described.format)
            kept = self._store.add_model(described.format, output)
            lowered = Lowered(
                blob=kept.blob,
                beside=kept.beside,
                size_bytes=now.size_bytes,
                steps=made.steps,
                max_error=made.max_error,
                samples=made.samples,
                golden_outputs=self._store.add_file(answers) if answers.exists() else "",
            )
        return lowered, now

"""Whether a release's model fits a device, asked before a byte is sent: `deploy fit`'s own judgement."""

import threading
from collections.abc import Mapping
from dataclasses import replace

from pipeline.errors import DeployError
from pipeline.fit.judge import judge
from pipeline.fit.records import Described
from pipeline.rollout.records import FIT
from pipeline.rollout.release import Model
from pipeline.rollout.verify import Blobs
from pipeline.worker import Worker
from targets.errors import DiskFull
from targets.records import Facts, Failed


class ReleaseFit:
    """Judges models for devices, from many threads; what a file needs is found out once.

    A release is signed as it is, so a file that would have to be lowered does not fit. What nobody knows, and a file
    that cannot be read here, are for the device to answer: its canary does, before anything is switched.

    Args:
        sheets: facts of earlier probes, by device: which runtimes were tried there, and what came of it.
    """

    def __init__(self, blobs: Blobs, sheets: Mapping[str, Facts]) -> None:
        self._blobs, self._sheets = blobs, sheets
        self._lock = threading.Lock()
        self._described: dict[str, Described | None] = {}

    def __call__(self, model: Model, facts: Facts) -> Failed | None:
        described = self._describe(model)
        if described is None:
            return None
        kept = self._sheets.get(facts.target)
        if kept and not facts.imports and kept.runtimes == facts.runtimes:
            facts = replace(facts, imports=kept.imports)
        fit = judge(described, facts)
        if fit.answer != "no":
            return None
        blocking = {reason.code for reason in fit.reasons if reason.weight in ("no", "lowerable")}
        # A full disk is the device's trouble and says nothing of the release.
        code = DiskFull.code if blocking == {"disk"} else FIT
        return Failed(code=code, message=f"the model {fit.text}", hint=fit.remedy or "deploy fit says more")

    def _describe(self, model: Model) -> Described | None:
        with self._lock:
            if model.blob not in self._described:
                self._described[model.blob] = self._read(model)
            return self._described[model.blob]

    def _read(self, model: Model) -> Described | None:
        try:
            path = self._blobs(model.blob)
        except KeyError:
            return None
        try:
            # A child of its own: one that is kept would end with the thread that has started it.
            with Worker() as worker:
                found: Described = worker.call("pipeline.fit.describe:describe", model=path, format=model.format)
        except DeployError:
            return None
        return found

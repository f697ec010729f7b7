"""`deploy push` of a release to hosts of the lab, without the process around it: for `benchmarks.fleet`."""

import hashlib
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from pipeline.rollout.engine import Engine
from pipeline.rollout.fleet import Fleet
from pipeline.rollout.journal import open_journal
from pipeline.rollout.records import Member, RolloutPlan, Wave
from pipeline.rollout.release import Release, read_release
from pipeline.rollout.settings import RolloutConfig
from targets.device import connect
from targets.records import TargetSpec


class Silent:
    """Watches and says nothing, as `deploy push --json` does."""

    def planned(self, plan: RolloutPlan) -> None: ...
    def changed(self, member: Member, step: str) -> None: ...
    def wave(self, number: int, devices: Sequence[str]) -> None: ...
    def judged(self, wave: Wave) -> None: ...
    def noted(self, text: str) -> None: ...


def proved_everywhere(specs: list[TargetSpec], folder: Path, files: dict[str, Path]) -> Release:
    """A release of these files, in use and confirmed on every host, as after a rollout."""
    ((digest, path),) = files.items()
    size = path.stat().st_size
    golden = {"inputs": digest, "inputs_bytes": size, "expected": digest, "expected_bytes": size}
    model = {"recipe": "litert-int8", "format": "tflite", "file": "model.tflite", "blob": digest, "size_bytes": size}
    said = {
        "schema": 1,
        "name": "net",
        "sequence": 1,
        "classes": {"default": {**model, "golden": [golden], "max_steps": 3, "budgets": {}, "runtime": {}}},
    }
    manifest = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    release = hashlib.sha256(manifest).hexdigest()

    def bring(spec: TargetSpec) -> None:
        with connect(spec, state=folder) as device:
            store = device.releases
            store.transfer(files)
            store.stage(manifest, b"", "default")
            store.activate(release)
            store.confirm(release)

    with ThreadPoolExecutor(len(specs)) as pool:
        list(pool.map(bring, specs))
    return read_release(manifest)


def pushed_again(specs: list[TargetSpec], folder: Path, release: Release) -> float:
    """Seconds to find that every host has the release; raises unless every one is said to be unchanged."""
    names = [spec.name for spec in specs]
    start = time.perf_counter()
    with closing(open_journal("", folder)) as journal:
        journal.remember(release, folder / "none.release")
        fleet = Fleet(
            specs={spec.name: spec for spec in specs},
            connect=lambda spec: connect(spec, state=folder, lazily=True),
            parallel=len(specs),
            retry_s=1.0,
        )
        engine = Engine(journal=journal, fleet=fleet, blobs=lambda digest: folder / digest, watching=Silent())
        policy = RolloutConfig().policy()
        result = engine.push(engine.plan(release, policy, names), release, policy)
    took = time.perf_counter() - start
    states = {member.state for member in result.members}
    if states != {"unchanged"} or len(result.members) != len(specs):
        raise RuntimeError(f"not all are unchanged: {states}")
    return took

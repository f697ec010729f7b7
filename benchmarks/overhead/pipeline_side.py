"""Our side: the steps of three stages, in a new store. `python -m benchmarks.overhead.pipeline_side FOLDER`."""

import sys
import time
from pathlib import Path

from pipeline.config_file import load_config
from pipeline.flow import Step, execute
from pipeline.records import Refusal
from pipeline.stages.context import Context
from pipeline.stages.run import Selection, steps
from pipeline.store import Store
from pipeline.worker import Worker

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("export", "calibrate", "quantize")
RECIPES = ("litert-float32", "litert-float16", "litert-dynamic-int8", "litert-int8", "litert-int16x8")


class Stopwatch:
    """Says on standard error how long each step took; a refused one would make us look fast."""

    def started(self, step: Step) -> None:
        self._started = time.perf_counter()

    def progressed(self, step: Step, done: int, total: int) -> None:
        pass

    def finished(self, step: Step, record: object, *, reused: bool) -> None:
        if reused or isinstance(record, Refusal):
            raise RuntimeError(f"{step.label} was not done: {record}")
        print(f"{step.label}: {time.perf_counter() - self._started:.2f} s", file=sys.stderr)


def run(folder: Path) -> None:
    """Make the five files below `folder`."""
    store = Store(folder / "state")
    with Worker() as worker, store.exclusive():
        context = Context(loaded=load_config(ROOT / "deploy.yaml"), store=store, worker=worker)
        ordered, _ = steps(context, Selection(recipes=RECIPES), folder / "out")
        execute([step for step in ordered if step.stage in STAGES], store, Stopwatch())


if __name__ == "__main__":
    run(Path(sys.argv[1]))

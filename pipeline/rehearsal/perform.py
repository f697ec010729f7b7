"""The rehearsal itself: a run under faults, everything mended, the same run again."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pipeline.config_file import LoadedConfig
from pipeline.flow import Observer, Step, execute
from pipeline.rehearsal.conductor import Conductor
from pipeline.rehearsal.draw import draw
from pipeline.rehearsal.outcome import Listener, Rehearsal, half_written
from pipeline.rehearsal.schedule import Schedule
from pipeline.stages.context import Context
from pipeline.stages.release import Releasing
from pipeline.stages.run import Selection, steps
from pipeline.store import Store, check_writable, explained_disk_errors
from pipeline.worker import Worker
from targets.lab.faults import inflict
from targets.lab.state import LabState, load_lab

Display = Callable[[Sequence[Step], str], AbstractContextManager[Observer]]  # its steps and title


def perform(
    loaded: LoadedConfig,
    schedule: Schedule,
    lab: LabState,
    *,
    recipes: tuple[str, ...],
    state: Path,
    out: Path,
    display: Display,
) -> Rehearsal:
    """Rehearse a run of `loaded`, whose targets are the lab's devices.

    Raises what a run raises, and UsageError for a schedule that does not fit the lab.
    """
    planned = draw(schedule, lab.devices)
    check_writable(out)
    store = Store(state)
    with Worker() as worker, explained_disk_errors(store.root), store.exclusive():
        context = Context(loaded=loaded, store=store, worker=worker)
        ordered, _ = steps(context, Selection(recipes=recipes), out, Releasing(wanted=False))
        with display(ordered, "under faults") as shown:
            under_faults = Listener(shown)
            with Conductor(lab.name, planned, under_faults) as conductor:
                execute(ordered, store, conductor)
        names = [spec.name for spec in loaded.target_specs()]
        for name in names:
            inflict(load_lab(lab.name), name, "restore")
        remains = {name: half_written(load_lab(lab.name), name) for name in names}
        with display(ordered, "mended, once more") as shown:
            mended = Listener(shown)
            execute(ordered, store, mended)
    return Rehearsal(
        lab=lab.name,
        seed=schedule.seed,
        happened=conductor.happened(),
        during=under_faults.found,
        after=mended.found,
        half_written=remains,
    )

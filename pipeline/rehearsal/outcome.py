"""What a run came to on each device, and whether anything on a device is half-written."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.errors import EnvironmentFault
from pipeline.flow import Observer, Step
from pipeline.records import Measured, Pushed
from pipeline.rehearsal.conductor import Happened
from pipeline.stages.judging import MAX_ANSWER_STEPS
from targets.lab.lab import command_inside
from targets.lab.state import USER, LabState, Service
from targets.records import Failed, Measurement

# What our agent keeps on a device is named by its own hash: whatever says otherwise was not written to its end.
_HASHES = "cd $0/blobs/sha256 2>/dev/null || exit 0; for file in *; do [ ! -f $file ] || sha256sum $file; done"
_ROOTS: Mapping[Service, str] = {"ssh": f"/home/{USER}/.edge-deploy", "adb": "/data/local/tmp/edge-deploy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run on one device."""

    answers: int = 0  # candidates that answered there as on the host
    wrong: int = 0  # candidates that answered, but otherwise
    failures: tuple[Failed, ...] = ()  # each kind of failure once

    @property
    def good(self) -> bool:
        return self.answers > 0 and not self.wrong and not self.failures


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """All that is known afterwards."""

    lab: str
    seed: int
    happened: tuple[Happened, ...]
    during: Mapping[str, Outcome]  # device → under the faults
    after: Mapping[str, Outcome]  # device → the same run again when everything was mended
    half_written: Mapping[str, tuple[str, ...]]  # device → files under a live name that are not what they claim

    @property
    def verdict(self) -> Literal["pass", "fail", "inconclusive"]:
        """Pass: every device does after its trouble what it should, and nothing is half-written anywhere.

        Inconclusive: the same, but some of the trouble never came, so there is less to believe than was asked for.
        """
        if not all(one.good for one in self.after.values()) or any(self.half_written.values()):
            return "fail"
        return "pass" if all(one.at_s is not None and not one.error for one in self.happened) else "inconclusive"


@dataclass
class Listener:
    """An observer that keeps what happens on devices, and passes everything on."""

    display: Observer
    found: dict[str, Outcome] = field(default_factory=dict)

    def started(self, step: Step) -> None:
        self.display.started(step)

    def progressed(self, step: Step, done: int, total: int) -> None:
        self.display.progressed(step, done, total)

    def noted(self, step: Step, note: str) -> None:
        self.display.noted(step, note)

    def finished(self, step: Step, record: object, *, reused: bool) -> None:
        if isinstance(record, Measured):
            self.found[record.target] = _outcome(record, self.found.get(record.target, Outcome()))
        elif step.stage == "push" and isinstance(record, Failed):
            self.found[step.name] = Outcome(failures=(record,))
        elif isinstance(record, Pushed):
            self.found[record.target] = Outcome()
        self.display.finished(step, record, reused=reused)


def _outcome(record: Measured, pushed: Outcome) -> Outcome:
    measured = [found for found in record.results.values() if isinstance(found, Measurement)]
    as_on_host = [m for m in measured if m.answer.finite and m.answer.max_steps <= MAX_ANSWER_STEPS]
    failed = [found for found in record.results.values() if isinstance(found, Failed)]
    return Outcome(
        answers=len(as_on_host),
        wrong=len(measured) - len(as_on_host),
        failures=tuple(dict.fromkeys([*pushed.failures, *failed])),
    )


def half_written(lab: LabState, device: str) -> tuple[str, ...]:
    """The names in the device's store whose content has another hash; raises EnvironmentFault when it is down."""
    command = command_inside(lab, device, ["sh", "-c", _HASHES, _ROOTS[lab.device(device).service]])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentFault(f"{device}: its store cannot be read: {done.stderr.strip()}", hint="deploy lab status")
    pairs = (line.split(maxsplit=1) for line in done.stdout.splitlines())
    return tuple(name for found, name in pairs if found != name)

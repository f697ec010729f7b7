"""Reaching devices: many at once, in bounded threads, again where the error may pass, and never one for all of them."""

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from pipeline.rollout.records import Seen
from pipeline.rollout.verify import Reached
from targets.errors import DeployError
from targets.glance import Glance
from targets.records import Failed, TargetSpec

T = TypeVar("T")
Connect = Callable[[TargetSpec], Reached]
Enough = Callable[[TargetSpec, Glance], bool]

# How often the main thread looks up from waiting, so that Ctrl-C is answered at once.
_LOOK_UP_S = 0.1
MAX_WAIT_S = 30.0
# A device that is off is asked once more, because a connection may be reset; four times would cost four time-outs.
LOOK_RETRIES = 1


class Interrupted(Exception):
    """The rollout is being stopped, and nothing on this device is half-done."""


@dataclass(slots=True, kw_only=True)
class Fleet:
    """The devices of one command, and the connections that are open to them."""

    specs: Mapping[str, TargetSpec]
    connect: Connect
    parallel: int
    retry_s: float
    stop: threading.Event = field(default_factory=threading.Event)
    _open: dict[str, Reached] = field(default_factory=dict)
    _guarded: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, names: Iterable[str], enough: Enough | None = None) -> dict[str, Seen]:
        """What every device is and has, or why that could not be found out; of some a glance says `enough`."""
        return self.each(names, lambda name: self._look(self.specs[name], enough))

    def _look(self, spec: TargetSpec, enough: Enough | None) -> Seen:
        def ask(device: Reached) -> Seen:
            if enough and (glanced := device.glance()) and enough(spec, glanced):
                return Seen(spec=spec, glance=glanced)
            return Seen(spec=spec, facts=device.facts(), installed=device.releases.installed())

        try:
            return self.attempt(spec, ask, retries=LOOK_RETRIES)
        except DeployError as fault:
            message = fault.message.removeprefix(f"{spec.name}: ").strip().splitlines()[0]
            failed = Failed(code=fault.code, message=message, hint=hint_for(fault))
            return Seen(spec=spec, fault=failed, transient=fault.transient)

    def each(
        self, names: Iterable[str], work: Callable[[str], T], meanwhile: Callable[[], None] = lambda: None
    ) -> dict[str, T]:
        """Do the same for many devices at once; what each came to, in the order of their names.

        On Ctrl-C what can be stopped is stopped, the rest is waited for, and KeyboardInterrupt goes on its way.
        `meanwhile` is called now and then. Work raises `Interrupted` for a device that is left out of the answer.
        """
        with ThreadPoolExecutor(self.parallel, thread_name_prefix="device") as pool:
            jobs: dict[str, Future[T]] = {name: pool.submit(work, name) for name in names}
            try:
                left = set(jobs.values())
                while left:
                    left = wait(left, timeout=_LOOK_UP_S).not_done
                    meanwhile()
            except BaseException:
                self.interrupt()
                for job in jobs.values():
                    job.cancel()
                raise
        found = {}
        for name, job in jobs.items():
            with suppress(Interrupted):
                found[name] = job.result()
        return found

    def attempt(self, spec: TargetSpec, work: Callable[[Reached], T], *, retries: int) -> T:
        """Connect and work, again after an error that may pass; raises the last error, or Interrupted."""
        number = 0
        while True:
            device: Reached | None = None
            try:
                self.check_stop(spec.name)
                device = self.connect(spec)
                with self._registered(device):
                    return work(device)
            except DeployError as fault:
                # An agent that has gone with its whole session was not refused anything: its device restarted, say.
                passing = fault.transient or (device is not None and device.over)
                self.check_stop(spec.name)
                if not passing or number == retries:
                    raise
                # Full jitter: devices that failed together do not come back together.
                self.stop.wait(random.uniform(0, min(MAX_WAIT_S, self.retry_s * 2**number)))
                number += 1

    def check_stop(self, name: str) -> None:
        """Raise Interrupted when all is to stop, unless the device is in the middle of a switch."""
        if self.stop.is_set() and name not in self._guarded:
            raise Interrupted

    def guard(self, name: str, *, on: bool) -> None:
        """Say that a device is in the middle of a switch, which is not interrupted."""
        with self._lock:
            (self._guarded.add if on else self._guarded.discard)(name)

    def interrupt(self) -> None:
        """Begin nothing more, and end what can be ended: connections of devices on which nothing is being switched."""
        self.stop.set()
        with self._lock:
            ending = [device for name, device in self._open.items() if name not in self._guarded]
        for device in ending:  # each in a thread of its own, because an agent is given time to leave
            threading.Thread(target=_end, args=(device,), daemon=True).start()

    @contextmanager
    def _registered(self, device: Reached) -> Iterator[None]:
        name = device.spec.name
        with self._lock:
            self._open[name] = device
        try:
            yield
        finally:
            with self._lock:
                self._open.pop(name, None)
            device.close()


def hint_for(fault: DeployError) -> str:
    """What to do about a device's trouble: the error's own word, or what is right for any such trouble."""
    usual = "deploy reconcile, once it answers" if fault.transient else "mend that on the device, then push again"
    return fault.hint or usual


def _end(device: Reached) -> None:
    with suppress(Exception):  # the thread that works on the device is told by an error of its own
        device.close()

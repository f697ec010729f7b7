"""The physics of a small board: joules from CPU seconds, degrees from joules, throttling from degrees. No I/O."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

# What `vcgencmd get_throttled` calls "ARM frequency capped"; the same bit 16 places higher: "has happened since boot".
FREQUENCY_CAPPED = 1 << 1
SINCE_BOOT_SHIFT = 16
_LOAD_S = (60.0, 300.0, 900.0)  # as Linux damps its load averages


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerParameters:
    """What one kind of board draws, and how it warms up."""

    idle_w: float
    busy_core_w: float  # added by each core that is busy all the time
    ambient_c: float
    resistance_k_per_w: float  # from the processor to the air around
    time_constant_s: float
    throttle_c: float  # at this temperature the firmware slows the processor down
    release_c: float  # and below this one it no longer does
    throttled_share: float  # of its full speed, while slowed down

    def __post_init__(self) -> None:
        """Raises ValueError for a board that could not be."""
        positive = (self.resistance_k_per_w, self.time_constant_s)
        if min(self.idle_w, self.busy_core_w) < 0 or min(positive) <= 0:
            raise ValueError("power must not be negative; thermal resistance and time constant must be positive")
        if not (self.release_c < self.throttle_c and 0 < self.throttled_share <= 1):
            raise ValueError("release_c must be below throttle_c, and throttled_share in (0, 1]")

    def settled_c(self, power_w: float) -> float:
        """The temperature that a constant power ends at."""
        return self.ambient_c + self.resistance_k_per_w * power_w


@dataclass(frozen=True, slots=True, kw_only=True)
class Average:
    """A sensor that shows the mean power of its last complete conversion and knows nothing of the one going on."""

    interval_s: float
    began_s: float
    began_energy_j: float
    mean_w: float

    def advance(self, before: "State", now_s: float, energy_j: float) -> Self:
        """Complete all conversions that end in the step from `before` to `now_s`, in which power was constant."""
        complete = math.floor((now_s - self.began_s) / self.interval_s)
        if complete < 1:
            return self

        def energy_at(moment_s: float) -> float:
            passed = (moment_s - before.now_s) / (now_s - before.now_s)
            return before.energy_j + (energy_j - before.energy_j) * passed

        end_s = self.began_s + complete * self.interval_s
        end_j = energy_at(end_s)
        begin_j = self.began_energy_j if complete == 1 else energy_at(end_s - self.interval_s)
        return replace(self, began_s=end_s, began_energy_j=end_j, mean_w=(end_j - begin_j) / self.interval_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A device at one moment."""

    now_s: float  # monotonic clock
    cpu_s: float  # used by the device until now
    energy_j: float  # since boot, of which
    busy_j: float  # were not the idle power
    power_w: float  # mean of the last step
    temperature_c: float
    throttled: bool
    ever_throttled: bool
    averages: tuple[Average, ...]
    began_s: float = 0.0  # when it was booted
    loads: tuple[float, ...] = (0.0, 0.0, 0.0)  # busy cores, damped over one, five and fifteen minutes
    plugged: bool = False  # a charger is connected

    def mean_w(self, interval_s: float) -> float:
        """What a sensor of this conversion time shows; raises KeyError for one that the state was not begun with."""
        for average in self.averages:
            if average.interval_s == interval_s:
                return average.mean_w
        raise KeyError(interval_s)

    def throttled_bits(self) -> int:
        """As `vcgencmd get_throttled` has them: what is, and what has been since boot."""
        return FREQUENCY_CAPPED * self.throttled | (FREQUENCY_CAPPED * self.ever_throttled) << SINCE_BOOT_SHIFT


def booted(parameters: PowerParameters, now_s: float, cpu_s: float, intervals_s: Iterable[float]) -> State:
    """A device that has been idle for long, with sensors of these conversion times."""
    idle_w = parameters.idle_w
    return State(
        now_s=now_s,
        cpu_s=cpu_s,
        energy_j=0.0,
        busy_j=0.0,
        power_w=idle_w,
        temperature_c=parameters.settled_c(idle_w),
        throttled=False,
        ever_throttled=False,
        began_s=now_s,
        averages=tuple(
            Average(interval_s=interval_s, began_s=now_s, began_energy_j=0.0, mean_w=idle_w)
            for interval_s in sorted(set(intervals_s))
        ),
    )


def step(parameters: PowerParameters, state: State, now_s: float, cpu_s: float) -> State:
    """The device at `now_s`, when it has used `cpu_s` CPU seconds in all.

    Exact for a power that is constant within the step: energy is its integral, the temperature the solution of
    C dT/dt = P − (T − T_ambient) / R. Raises ValueError when time or CPU time runs backwards.
    """
    elapsed_s, used_s = now_s - state.now_s, cpu_s - state.cpu_s
    if elapsed_s < 0 or used_s < 0:
        raise ValueError("time runs backwards")
    if elapsed_s == 0:
        return state  # CPU time that came with it counts in the next step
    busy_j = parameters.busy_core_w * used_s
    spent_j = parameters.idle_w * elapsed_s + busy_j
    power_w = spent_j / elapsed_s
    settled_c = parameters.settled_c(power_w)
    remaining = math.exp(-elapsed_s / parameters.time_constant_s)
    temperature_c = settled_c + (state.temperature_c - settled_c) * remaining
    limit_c = parameters.release_c if state.throttled else parameters.throttle_c
    throttled = temperature_c >= limit_c
    energy_j = state.energy_j + spent_j
    damped = [math.exp(-elapsed_s / over_s) for over_s in _LOAD_S]
    return State(
        now_s=now_s,
        cpu_s=cpu_s,
        energy_j=energy_j,
        busy_j=state.busy_j + busy_j,
        power_w=power_w,
        temperature_c=temperature_c,
        throttled=throttled,
        ever_throttled=state.ever_throttled or throttled,
        began_s=state.began_s,
        loads=tuple(
            load * kept + used_s / elapsed_s * (1 - kept) for load, kept in zip(state.loads, damped, strict=True)
        ),
        averages=tuple(average.advance(state, now_s, energy_j) for average in state.averages),
    )


def allowed_cores(parameters: PowerParameters, demanded_cores: float) -> float:
    """How much CPU a hot device may use: as slow a clock would leave it, each core slower and none taken away.

    Never below what one core leaves, or a burst after idling would be slowed to nothing.
    """
    return parameters.throttled_share * max(1.0, demanded_cores)

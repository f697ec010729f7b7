"""The power management chip of a Raspberry Pi 5, by the firmware's `vcgencmd pmic_read_adc`.

Twelve rails have an ammeter and a voltmeter; their sum is less than what the board draws: neither the USB ports and the
5 V pins nor the conversion losses are in it, and the supply has a voltmeter only. There is no accumulating register,
and every reading costs a process.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from targets.meter import Readings
from targets.meters.ina2xx import traced
from targets.records import Absent, PowerSource, PowerTrace

COMMAND = "pmic_read_adc"
_READING = re.compile(r"(\w+)_([AV]) (?:current|volt)\(\d+\)=(-?[\d.]+)[AV]")
_RAILS = 12
_INTERVAL_S = 0.1  # as zeus reads it; a process for each reading allows no more
_ERROR_SHARE = 0.05  # nobody documents it; users who compared with a meter saw a few percent
# total = 1.145 x sum + 0.588 W: what users with a meter in the supply have fitted (zeus, issue 273).
_FIT_SHARE, _FIT_W = 1.145, 0.588


def rails_w(text: str) -> float | None:
    """The sum of V x I over the rails that have both; None when the text is not the command's whole answer."""
    volts: dict[str, float] = {}
    amperes: dict[str, float] = {}
    for rail, kind, number in _READING.findall(text):
        (amperes if kind == "A" else volts)[rail] = float(number)
    rails = amperes.keys() & volts.keys()
    return sum(amperes[rail] * volts[rail] for rail in rails) if len(rails) >= _RAILS else None


class Pmic:
    """What the twelve rails draw."""

    name = "rpi5-pmic"
    scope = "12 rails of the board's power chip; not USB, 5 V pins, fan, losses"

    def sources(self, sensors: Mapping[str, str]) -> Sequence[PowerSource]:
        return [self._source()] if rails_w(sensors.get(f"command:{COMMAND}", "")) is not None else []

    def _source(self) -> PowerSource:
        return PowerSource(
            meter=self.name,
            place=COMMAND,
            scope=self.scope,
            interval_s=_INTERVAL_S,
            error_share=_ERROR_SHARE,
            command=COMMAND,
        )

    def trace(self, source: PowerSource, readings: Readings) -> PowerTrace | Absent:
        sums = [(at, rails_w(texts[0])) for at, texts in zip(readings.time_ns, readings.values, strict=True)]
        samples = [(at, self._whole_w(sum_w)) for at, sum_w in sums if sum_w is not None]
        moments_ns = [at for at, _ in samples]
        # Where a process takes its time, readings come as often as the meter's share of the processor allows.
        pace_s = (moments_ns[-1] - moments_ns[0]) * 1e-9 / max(1, len(moments_ns) - 1) if moments_ns else 0.0
        paced = replace(source, interval_s=max(source.interval_s, pace_s))
        return traced(paced, moments_ns, [power_w for _, power_w in samples])

    def _whole_w(self, sum_w: float) -> float:
        return sum_w


class FittedPmic(Pmic):
    """The same, brought to the board's input by a published fit: an estimate, to be asked for by name."""

    name = "rpi5-board"
    scope = f"board's input, estimated: {_FIT_SHARE} × the 12 rails + {_FIT_W} W"

    def _source(self) -> PowerSource:
        found = super()._source()
        return PowerSource(
            meter=self.name,
            place=found.place,
            scope=self.scope,
            interval_s=found.interval_s,
            error_share=0.1,  # boards with other things plugged in were not fitted
            kind="modelled",
            command=found.command,
        )

    def _whole_w(self, sum_w: float) -> float:
        return _FIT_SHARE * sum_w + _FIT_W

"""The power management chip of a Raspberry Pi 5, as the firmware's `vcgencmd pmic_read_adc` prints it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from targets.lab.power.model import PowerParameters, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Rail:
    """A rail that has both an ammeter and a voltmeter."""

    name: str
    ampere_channel: int
    volt_channel: int
    volts: float
    idle_share: float  # of the power of all rails together; a busy core adds to VDD_CORE only


def _rail(name: str, ampere_channel: int, volt_channel: int, volts: float, idle_share: float) -> Rail:
    return Rail(name=name, ampere_channel=ampere_channel, volt_channel=volt_channel, volts=volts, idle_share=idle_share)


# In the order of the command's output. Channels and voltages are those of real boards, shares such as an idle one's.
RAILS = (
    _rail("3V7_WL_SW", 0, 8, 3.705344, 0.09),
    _rail("3V3_SYS", 1, 9, 3.314673, 0.08),
    _rail("1V8_SYS", 2, 10, 1.809034, 0.16),
    _rail("DDR_VDD2", 3, 11, 1.102929, 0.01),
    _rail("DDR_VDDQ", 4, 12, 0.6157503, 0.0),
    _rail("1V1_SYS", 5, 13, 1.105127, 0.11),
    _rail("0V8_SW", 6, 14, 0.8029296, 0.14),
    _rail("VDD_CORE", 7, 15, 0.7209762, 0.355),
    _rail("3V3_DAC", 17, 20, 3.30952, 0.001),
    _rail("3V3_ADC", 18, 21, 3.30952, 0.001),
    _rail("0V8_AON", 16, 19, 0.797655, 0.003),
    _rail("HDMI", 22, 23, 5.16034, 0.05),
)
# Voltmeters only: the supply, and the cell of the clock, which few boards have.
_VOLTS_ONLY = (("EXT5V", 24, 5.171059), ("BATT", 25, 0.0059829))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pmic:
    """What its twelve rails see is less than what the board draws: power = loss_factor × sum + unseen_w.

    The defaults are the fit that users with a meter in the supply have published.
    """

    loss_factor: float = 1.145
    unseen_w: float = 0.588
    interval_s: float = 0.035  # the converter's own is not documented

    folder: ClassVar[str] = "firmware"
    root_only: ClassVar[frozenset[str]] = frozenset()

    def files(self, parameters: PowerParameters, state: State) -> Mapping[str, object]:
        idle_w = max(0.0, parameters.idle_w - self.unseen_w) / self.loss_factor
        busy_w = (state.mean_w(self.interval_s) - parameters.idle_w) / self.loss_factor
        amperes, volts = [], []
        for rail in RAILS:
            power_w = rail.idle_share * idle_w + (busy_w if rail.name == "VDD_CORE" else 0.0)
            amperes.append(f"{rail.name + '_A':>12} current({rail.ampere_channel})={power_w / rail.volts:.8f}A")
            volts.append(f"{rail.name + '_V':>12} volt({rail.volt_channel})={rail.volts:.8f}V")
        only = [f"{name + '_V':>12} volt({channel})={reading:.8f}V" for name, channel, reading in _VOLTS_ONLY]
        return {"pmic_read_adc": "\n".join([*amperes, *volts, *only])}

    def links(self, hwmon: str) -> Iterator[tuple[str, str]]:
        """Nowhere but in the firmware's command."""
        yield from ()

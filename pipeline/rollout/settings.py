"""`rollout:` of deploy.yaml."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator

from pipeline.errors import UsageError
from pipeline.quantities import parse_quantity
from pipeline.rollout.records import Policy, WaveSize

_NOTHING = re.compile(r"\s*0(\.0*)?\s*(%|ms|s)?\s*")


def _parsed(value: object, dimension: str) -> float:
    try:
        # Unlike elsewhere nothing is a good answer here: no soak time, no failure.
        return 0.0 if _NOTHING.fullmatch(str(value)) else parse_quantity(value, dimension)
    except UsageError as error:
        raise ValueError(f"{error.message}; {error.hint}") from None


def _share(value: object) -> float:
    found = _parsed(value, "share")
    if found > 1:
        raise ValueError(f"{value!r} is more than all; write a share such as 10 %")
    return found


def _wave(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError("a wave has at least one device")
        return WaveSize(count=value)
    share = _share(value)
    if not share:
        raise ValueError("a wave has at least one device")
    return WaveSize(share=share)


def _schema(example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": ["string", "number"], "description": f"such as {example}"})


Share = Annotated[float, BeforeValidator(_share), _schema("10 %")]
# A slower release may be what is wanted: keeping float32 is a legal answer.
Margin = Annotated[float, BeforeValidator(lambda value: _parsed(value, "share")), _schema("10 %")]
Seconds = Annotated[float, BeforeValidator(lambda value: _parsed(value, "s")), _schema("30 s")]
Size = Annotated[WaveSize, BeforeValidator(_wave), _schema("1 or 10 %")]


_WAVES: Any = [1, "10 %", "50 %", "100 %"]  # as one writes it, and read like what is written


class RolloutConfig(BaseModel):
    """How a release gets onto the devices (`deploy push`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    waves: list[Size] = Field(
        default=_WAVES,
        validate_default=True,
        description="how many devices have the release after each wave, as counts or shares, for each kind of device; "
        "the first are the canaries",
    )
    soak: Seconds = Field(default=30.0, description="time between waves, after which the devices are looked at again")
    max_failures: Share = Field(default=0.1, description="largest share of a wave that may fail")
    error_budget: Share = Field(default=0.1, description="largest share of all devices that may fail")
    parallel: int = Field(default=32, ge=1, description="devices worked on at once")
    keep: int = Field(default=3, ge=2, description="releases that stay on a device")
    on_failure: Literal["stop", "rollback-wave", "rollback-all"] = Field(
        default="stop",
        description="when a wave does not pass; a device that fails is always rolled back itself",
    )
    retries: int = Field(default=3, ge=0, description="new tries on a device after an error that may pass")
    retry: Seconds = Field(default=1.0, description="longest wait before the first new try; it doubles, with jitter")
    p90_margin: Margin = Field(
        default=0.1, description="how much slower than the release before it on the same device is still no worse"
    )
    compare_blocks: int = Field(
        default=6, ge=0, description="pairs of benchmarks, old and new release in turn, per device; 0: no comparison"
    )
    compare_devices: int = Field(default=3, ge=0, description="devices of each kind and wave on which that is done")

    trusted: list[str] = Field(
        default_factory=list,
        description="files of public keys, one of which must have signed a release; default: that of `release.key`; "
        "without either, nobody needs to have signed",
    )

    @field_validator("waves")
    @classmethod
    def _reaches_all(cls, waves: list[WaveSize]) -> list[WaveSize]:
        if not waves or waves[-1].share != 1.0:
            raise ValueError("the last wave should be 100 %, or some devices would never get the release")
        return waves

    def policy(self, **changes: Any) -> Policy:
        """The same as a record."""
        settings: dict[str, Any] = {
            "waves": tuple(self.waves),
            "soak_s": self.soak,
            "max_failures": self.max_failures,
            "error_budget": self.error_budget,
            "parallel": self.parallel,
            "keep": self.keep,
            "on_failure": self.on_failure,
            "retries": self.retries,
            "retry_s": self.retry,
            "warm_s": 0.4,
            "p90_margin": self.p90_margin,
            "compare_blocks": self.compare_blocks,
            "compare_devices": self.compare_devices,
        }
        return Policy(**{**settings, **changes})

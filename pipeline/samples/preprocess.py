"""The declared steps between a file and a model input: each is a small frozen model with `apply`.

In deploy.yaml a step is a mapping with one key, or its bare name when it needs no argument:

    preprocess: [{center_crop: 192}, {resize: {size: [96, 96], filter: bicubic}}, {scale: 1/255}]

Spatial steps take one sample as [height, width, channels] (no batch axis).
"""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PositiveInt,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from .resampling import Filter, resize

Array = NDArray[Any]

# ITU-R BT.601 luma, the weights of Pillow's own "L" conversion.
_LUMA = np.array([0.299, 0.587, 0.114])


def _number(value: object) -> object:
    """Accept "1/255" where a number is meant: YAML has no fractions and 0.00392 is not 1/255."""
    if isinstance(value, str):
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError):
            raise PydanticCustomError(
                "number",
                "`{value}` is neither a number nor a fraction such as 1/255",
                {
                    "value": value,
                },
            ) from None
    return value


Number = Annotated[
    float,
    BeforeValidator(_number),
    Field(allow_inf_nan=False),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^-?[0-9.]+(/[0-9.]+)?$"}]}),
]


def _size(value: object, validate: ValidatorFunctionWrapHandler) -> Any:
    """Report a wrong size once, not once per alternative of the union."""
    try:
        return validate(value)
    except ValidationError:
        raise PydanticCustomError("size", "a size is one number or [height, width], in pixels above 0") from None


# One number stands for a square.
Size = Annotated[PositiveInt | tuple[PositiveInt, PositiveInt], WrapValidator(_size)]


class _Step(BaseModel):
    """One step. `step` is its name in deploy.yaml; `short` the field a bare value stands for."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    short: ClassVar[str] = ""
    step: str

    @abstractmethod
    def apply(self, array: Array) -> Array:
        """Transform one sample without its batch axis; ValueError says why it cannot."""

    def describe(self) -> dict[str, Any]:
        """Return the step as canonical data, every default spelled out."""
        return {self.step: self.model_dump(mode="json", exclude={"step"})}


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _spatial(array: Array) -> tuple[int, int]:
    if array.ndim != 3:
        raise ValueError(f"needs [height, width, channels], got {list(array.shape)}")
    return array.shape[0], array.shape[1]


class CenterCrop(_Step):
    """Cut the middle out; an odd remainder goes to the bottom and right."""

    short: ClassVar[str] = "size"
    step: Literal["center_crop"] = "center_crop"
    size: Size

    def apply(self, array: Array) -> Array:
        have, want = _spatial(array), _pair(self.size)
        if want[0] > have[0] or want[1] > have[1]:
            raise ValueError(
                f"cannot cut {want[0]}×{want[1]} out of {have[0]}×{have[1]} (put a `resize` or `pad` before)"
            )
        top, left = (have[0] - want[0]) // 2, (have[1] - want[1]) // 2
        return array[top : top + want[0], left : left + want[1]]


class Crop(_Step):
    """Cut out a fixed rectangle, in pixels."""

    step: Literal["crop"] = "crop"
    top: int = Field(ge=0)
    left: int = Field(ge=0)
    height: PositiveInt
    width: PositiveInt

    def apply(self, array: Array) -> Array:
        have = _spatial(array)
        if self.top + self.height > have[0] or self.left + self.width > have[1]:
            raise ValueError(f"the rectangle leaves the image of {have[0]}×{have[1]}")
        return array[self.top : self.top + self.height, self.left : self.left + self.width]


class Resize(_Step):
    """Resize with Pillow's antialiased filters; `area` is its box filter.

    With `keep_aspect` the shorter side becomes the (single) size and the other follows, rounded.
    """

    short: ClassVar[str] = "size"
    step: Literal["resize"] = "resize"
    size: Size
    filter: Filter = "bilinear"
    keep_aspect: bool = False

    def apply(self, array: Array) -> Array:
        height, width = _spatial(array)
        wanted = _pair(self.size)
        if self.keep_aspect:
            ratio = wanted[0] / min(height, width)
            wanted = (round(height * ratio), round(width * ratio))
        return resize(array, wanted, self.filter)

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if self.keep_aspect and not isinstance(self.size, int):
            raise PydanticCustomError("size", "`keep_aspect` takes one number, the shorter side")
        return self


class Scale(_Step):
    """Return `x · by + offset` as float32, computed in float64."""

    short: ClassVar[str] = "by"
    step: Literal["scale"] = "scale"
    by: Number
    offset: Number = 0.0

    def apply(self, array: Array) -> Array:
        return (array.astype(np.float64) * self.by + self.offset).astype(np.float32)


class MeanStd(_Step):
    """Return `(x − mean) / std` as float32, per channel of the last axis (or one number for all)."""

    step: Literal["mean_std"] = "mean_std"
    mean: tuple[Number, ...]
    std: tuple[Annotated[Number, Field(gt=0)], ...]

    def apply(self, array: Array) -> Array:
        channels = array.shape[-1] if array.ndim else 1
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ValueError(f"`{name}` has {len(values)} values, the sample has {channels} channels")
        mean, std = np.array(self.mean), np.array(self.std)
        return np.asarray((array.astype(np.float64) - mean) / std, dtype=np.float32)


class Layout(_Step):
    """Say which layout the model takes; samples are NHWC before it, so `nhwc` changes nothing."""

    short: ClassVar[str] = "order"
    step: Literal["layout"] = "layout"
    order: Literal["nchw", "nhwc"]

    def apply(self, array: Array) -> Array:
        _spatial(array)
        return np.ascontiguousarray(array.transpose(2, 0, 1)) if self.order == "nchw" else array


class Grayscale(_Step):
    """Reduce RGB to one channel by BT.601 luma; integers are rounded."""

    step: Literal["grayscale"] = "grayscale"

    def apply(self, array: Array) -> Array:
        _spatial(array)
        if array.shape[2] == 1:
            return array
        if array.shape[2] != 3:
            raise ValueError(f"needs 1 or 3 channels, got {array.shape[2]}")
        luma = (array.astype(np.float64) @ _LUMA)[:, :, None]
        return np.asarray(np.rint(luma) if np.issubdtype(array.dtype, np.integer) else luma, dtype=array.dtype)


class Pad(_Step):
    """Pad to at least this size, centred, with a constant; what is larger already stays."""

    short: ClassVar[str] = "size"
    step: Literal["pad"] = "pad"
    size: Size
    value: Number = 0.0

    def apply(self, array: Array) -> Array:
        have = _spatial(array)
        missing = [max(0, want - got) for want, got in zip(_pair(self.size), have, strict=True)]
        around = [(extra // 2, extra - extra // 2) for extra in missing]
        if np.issubdtype(array.dtype, np.integer):
            limits = np.iinfo(array.dtype)
            if not (self.value.is_integer() and limits.min <= self.value <= limits.max):
                raise ValueError(f"the value {self.value:g} does not exist in {array.dtype}")
        return np.pad(array, [*around, (0, 0)], constant_values=array.dtype.type(self.value))


class Dtype(_Step):
    """Convert the number type. Floats going to integers are rounded; a value that does not fit is an error."""

    short: ClassVar[str] = "dtype"
    step: Literal["dtype"] = "dtype"
    dtype: Literal["float32", "float16", "uint8", "int8", "int16", "uint16", "int32", "int64", "bool"]

    def apply(self, array: Array) -> Array:
        wanted = np.dtype(self.dtype)
        if np.issubdtype(wanted, np.integer):
            if not np.isfinite(array).all():
                raise ValueError(f"NaN or infinity cannot become {self.dtype}")
            array = np.rint(array) if np.issubdtype(array.dtype, np.floating) else array
            limits = np.iinfo(wanted)
            if array.size and (array.min() < limits.min or array.max() > limits.max):
                raise ValueError(f"values from {array.min()} to {array.max()} do not fit {self.dtype}")
        return array.astype(wanted)


_KINDS: tuple[type[_Step], ...] = (CenterCrop, Crop, Resize, Scale, MeanStd, Layout, Grayscale, Pad, Dtype)
STEPS: Mapping[str, type[_Step]] = {kind.model_fields["step"].default: kind for kind in _KINDS}


def _spell_out(value: object) -> object:
    """Turn `{scale: 1/255}` into what the tagged union reads: {"step": "scale", "by": "1/255"}."""
    if isinstance(value, _Step):
        return value
    if isinstance(value, str):
        value = {value: {}}
    if not isinstance(value, Mapping) or len(value) != 1:
        raise PydanticCustomError("step", "a step is one name with its argument, such as `scale: 1/255`")
    [(name, argument)] = value.items()
    kind = STEPS.get(name) if isinstance(name, str) else None
    if kind is None:
        near = get_close_matches(str(name), STEPS, n=1)
        advice = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(STEPS)}"
        raise PydanticCustomError("step", "unknown step `{name}`: {advice}", {"name": str(name), "advice": advice})
    if argument is None:
        argument = {}
    if not isinstance(argument, Mapping):
        if not kind.short:
            fields = ", ".join(field for field in kind.model_fields if field != "step") or "no argument"
            raise PydanticCustomError("step", "`{name}` takes {fields}", {"name": name, "fields": fields})
        argument = {kind.short: argument}
    return {**argument, "step": name}


def _yaml_schema() -> dict[str, Any]:
    """Describe a step as it is written in deploy.yaml, not as the tagged union behind it."""
    forms: list[dict[str, Any]] = []
    for name, kind in STEPS.items():
        whole = kind.model_json_schema()
        fields = whole["properties"]
        fields.pop("step")
        argument = {"anyOf": [fields[kind.short], whole]} if kind.short else whole
        forms.append(
            {"type": "object", "properties": {name: argument}, "required": [name], "additionalProperties": False}
        )
    return {"anyOf": [*forms, {"const": "grayscale"}]}


Step = Annotated[
    Annotated[CenterCrop, Tag("center_crop")]
    | Annotated[Crop, Tag("crop")]
    | Annotated[Resize, Tag("resize")]
    | Annotated[Scale, Tag("scale")]
    | Annotated[MeanStd, Tag("mean_std")]
    | Annotated[Layout, Tag("layout")]
    | Annotated[Grayscale, Tag("grayscale")]
    | Annotated[Pad, Tag("pad")]
    | Annotated[Dtype, Tag("dtype")],
    Discriminator("step"),
    BeforeValidator(_spell_out),
    PlainSerializer(lambda step: step.describe()),
    WithJsonSchema(_yaml_schema()),
]


def _layout_last(steps: list[Step]) -> list[Step]:
    """Refuse what would silently mix up axes: after `layout: nchw` the channels are no longer last."""
    names = [step.step for step in steps]
    if "layout" in names:
        late = [name for name in names[names.index("layout") + 1 :] if name not in ("scale", "dtype")]
        if late:
            raise PydanticCustomError(
                "order",
                "`{late}` reads [height, width, channels]: put it before `layout`",
                {
                    "late": late[0],
                },
            )
    return steps


Steps = Annotated[list[Step], AfterValidator(_layout_last)]


def apply_steps(steps: Iterable[Step], array: Array) -> Array:
    """Run the steps in order; ValueError names the step that could not."""
    for step in steps:
        try:
            array = step.apply(array)
        except ValueError as error:
            raise ValueError(f"`{step.step}` {error}") from error
    return array


def describe(steps: Iterable[Step]) -> list[dict[str, Any]]:
    """Return the steps as canonical data."""
    return [step.describe() for step in steps]


def digest(declared: object) -> str:
    """Return the SHA-256 of canonical JSON: what was declared, not how a Pillow version computes it."""
    text = json.dumps(declared, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()

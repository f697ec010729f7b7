"""What a model asks of a runtime, and whether a device has it: data, no behaviour but words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ModelFormat = Literal["tflite", "onnx", "ort"]
RuntimeName = Literal["litert", "onnxruntime"]
# lowering: it does not fit as it is, and a rewritten file that answers the same does. unsure: nobody knows.
UNFIT = "unfit"  # code of the `Failed` that stands for a measurement of what does not fit
Answer = Literal["fits", "lowering", "no", "unsure"]
# no: it cannot run there. lowerable: neither, but perhaps rewritten. unsure: nobody knows. note: worth knowing.
Weight = Literal["no", "lowerable", "unsure", "note"]

RUNTIME_OF: Mapping[ModelFormat, RuntimeName] = {"tflite": "litert", "onnx": "onnxruntime", "ort": "onnxruntime"}
RUNTIME_TITLES: Mapping[RuntimeName, str] = {"litert": "LiteRT", "onnxruntime": "ONNX Runtime"}


class Malformed(ValueError):
    """Bytes that are not what their name says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteNeeds:
    """What a runtime must know to load a `.tflite` file."""

    ops: tuple[tuple[int, int], ...]  # builtin code, version: the one written, or the one its tensors need
    custom: tuple[str, ...]
    min_runtime: str  # as the converter noted it: TensorFlow's numbering; empty when it did not
    # Codes whose tensors need a newer version than the file says: an older runtime loads it and answers wrong.
    unstamped: tuple[int, ...] = ()
    tensor_type: int = 0  # the newest of its tensors' data types, a number of TFLite's schema


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxNeeds:
    """What a runtime must know to load an `.onnx` file."""

    ir: int
    opset: int
    domains: tuple[str, ...]  # operators of others than ONNX
    ops: tuple[str, ...] = ()  # those operators, such as com.microsoft.MatMulNBits
    ml: int = 0  # opset of ai.onnx.ml, also where none of its operators is used; 0: not named


@dataclass(frozen=True, slots=True, kw_only=True)
class OrtNeeds:
    """The version of the ORT format that an `.ort` file is in."""

    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A model file as far as a device is concerned. The memory is of weights and activations, without the runtime's."""

    format: Literal["tflite", "onnx"]
    size_bytes: int
    needs: TfliteNeeds | OnnxNeeds
    activation_bytes: int  # at the moment when most of them live; 0: shapes are not known
    integer: bool  # computes on int8
    wide_integer: bool  # on int16 activations


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a model does not fit, perhaps does not, or is worse off than it could be; and what to do about it."""

    code: str
    weight: Weight
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """What was done to a file for an older runtime, and how far its answers are from the original's on this host."""

    steps: tuple[str, ...]
    max_error: float  # as a share of the range of the output
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """The rewritten file; see `Rewritten`."""

    blob: str  # SHA-256
    size_bytes: int
    steps: tuple[str, ...]
    max_error: float
    samples: int
    beside: Mapping[str, int] = field(default_factory=dict)  # digest -> bytes: in its folder, with its weights
    golden_outputs: str = ""  # SHA-256 of its own answers to the sample it was given; empty without one


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Whether one model file fits one device as it was when it was probed."""

    target: str
    answer: Answer
    runtime: str  # distribution and version that would run it; empty when there is none
    memory_bytes: int  # file and activations
    reasons: tuple[Reason, ...] = ()  # of a lowered one: why it had to be
    lowered: Lowered | None = None

    @property
    def text(self) -> str:
        """The answer in one line."""
        if self.answer == "lowering" and self.lowered:
            return f"fits after lowering: {'; '.join(self.lowered.steps)}"
        blocking = [reason.detail for reason in self.reasons if reason.weight in ("no", "lowerable")]
        if self.answer == "no":
            return f"does not fit: {'; '.join(blocking)}"
        if self.answer == "unsure":
            return f"nobody knows: {'; '.join(r.detail for r in self.reasons if r.weight == 'unsure')}"
        return "fits"

    @property
    def remedy(self) -> str:
        """What to do about what does not fit or is not known."""
        found = [reason.remedy for reason in self.reasons if reason.weight != "note" and reason.remedy]
        return "; ".join(dict.fromkeys(found))

"""The `data:` section of deploy.yaml: where samples come from, what is done to them, and what the right answers are."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, NonNegativeInt, PositiveInt, Tag

from .preprocess import Steps, describe, digest


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageTruth(_Model):
    """The truth is the sample's own image file, prepared by its own steps."""

    image: Steps


class FolderTruth(_Model):
    """The truth of `a.png` is the image with the stem `a` in this folder, prepared by its own steps."""

    folder: str
    preprocess: Steps = []


class ArrayTruth(_Model):
    """The truth is another array of the same `.npz`."""

    array: str


_TRUTHS = {"image": ImageTruth, "folder": FolderTruth, "array": ArrayTruth}


def _truth_kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "path"
    if isinstance(value, dict):
        return next((kind for kind in ("image", "folder", "array") if kind in value), None)
    return next((kind for kind, model in _TRUTHS.items() if isinstance(value, model)), None)


Truth = Annotated[
    Annotated[str, Tag("path")]
    | Annotated[ImageTruth, Tag("image")]
    | Annotated[FolderTruth, Tag("folder")]
    | Annotated[ArrayTruth, Tag("array")],
    Discriminator(
        _truth_kind,
        custom_error_type="truth",
        custom_error_message="should be a path, folders, next-token, {image: steps}, {folder: path} or {array: name}",
    ),
]


Preprocess = Annotated[
    Annotated[Steps, Tag("steps")] | Annotated[dict[str, Steps], Tag("by input")],
    # Decided by the form, so that a wrong step is reported once and not once per alternative.
    Discriminator(lambda value: "by input" if isinstance(value, dict) else "steps"),
]


class DataSpec(_Model):
    """One set of samples.

    path: a folder of images, `.npz`, `.npy`, a text file (with `tokenizer`), or a function (`file.py:name`).
    truth: a path (.npy, .npz, .csv, .txt, a folder), "folders", "next-token", {image: steps}, {folder: …}, {array: …}.
    """

    path: str = Field(min_length=1)
    preprocess: Preprocess = []
    truth: Truth | None = None
    tokenizer: str = ""  # char vocabulary .json, Hugging Face tokenizer.json, or function encode(str) -> list[int]
    window: PositiveInt | None = None  # tokens per sample; needed only when the model's length is free
    stride: PositiveInt | None = None  # tokens from one sample to the next; default: the window
    left_pad: NonNegativeInt | None = None  # token id that fills contexts shorter than the window, on the left
    limit: PositiveInt | None = None  # at most this many samples, a seeded choice, order kept
    seed: NonNegativeInt = 0

    def steps(self, name: str) -> Steps:
        """Return the steps of one input."""
        return self.preprocess.get(name, []) if isinstance(self.preprocess, dict) else self.preprocess

    def preprocess_digest(self) -> str:
        """Return the SHA-256 of all that is declared about turning the source into samples, its path excluded."""
        steps = self.preprocess
        declared = {name: describe(own) for name, own in steps.items()} if isinstance(steps, dict) else describe(steps)
        truth = self.truth
        truth_steps = (
            describe(truth.image)
            if isinstance(truth, ImageTruth)
            else describe(truth.preprocess)
            if isinstance(truth, FolderTruth)
            else []
        )
        text = [self.window, self.stride, self.left_pad]
        return digest({"inputs": declared, "truth": truth_steps, "text": text})


class Part(_Model):
    """A path with its own limit."""

    path: str = Field(min_length=1)
    limit: PositiveInt | None = None
    seed: NonNegativeInt = 0


def _part_kind(value: Any) -> str | None:
    if isinstance(value, dict | Part):
        return "part"
    return "path" if isinstance(value, str) else None


PathOrPart = Annotated[
    Annotated[Annotated[str, Field(min_length=1)], Tag("path")] | Annotated[Part, Tag("part")],
    Discriminator(
        _part_kind,
        custom_error_type="part",
        custom_error_message="should be a path, `file.py:function`, or {path: …, limit: …}",
    ),
]


class DataSection(_Model):
    """`data:` as written: two sets that are prepared alike."""

    calibrate: PathOrPart
    test: PathOrPart
    preprocess: Preprocess = []
    truth: Truth | None = None
    tokenizer: str = ""
    window: PositiveInt | None = None
    stride: PositiveInt | None = None
    left_pad: NonNegativeInt | None = None

    def spec(self, part: Literal["calibrate", "test"]) -> DataSpec:
        """Return one set; calibration needs no right answers, so only `test` gets `truth`."""
        own = self.calibrate if part == "calibrate" else self.test
        own = Part(path=own) if isinstance(own, str) else own
        return DataSpec(
            path=own.path,
            limit=own.limit,
            seed=own.seed,
            preprocess=self.preprocess,
            truth=self.truth if part == "test" else None,
            tokenizer=self.tokenizer,
            window=self.window,
            stride=self.stride,
            left_pad=self.left_pad,
        )

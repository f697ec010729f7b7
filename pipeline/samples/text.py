"""A text file as token windows for a language model; the truth is the token that comes next."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import InputError, UsageError
from targets.records import TensorSpec

from .files import check_file, resolve
from .sample import Raw
from .spec import DataSpec
from .tokenization import open_tokenizer


class TextFile:
    """Windows of one text for a model with one input [1, T].

    Without `left_pad` the windows are the tokens [0, T), [stride, stride + T) …, each followed by its truth.
    With `left_pad` the truths are the tokens stride, 2·stride …, and their contexts are the up to T tokens before,
    filled on the left: a text shorter than the window still gives samples.
    Sample ids name token places: `novel.txt[120:160]`.
    """

    def __init__(self, spec: DataSpec, signature: Sequence[TensorSpec], base: Path) -> None:
        path = check_file(resolve(spec.path, base), "text file")
        if not spec.tokenizer:
            raise UsageError(
                f"{path}: text needs a `tokenizer`", hint="name a vocabulary .json, a tokenizer.json or a function"
            )
        if spec.truth not in (None, "next-token"):
            raise UsageError(f"{path}: the truth of a text is `next-token`", hint="use an .npz for any other truth")
        self._name, self._window = _model_window(spec, signature)
        self._pad = spec.left_pad
        try:
            self._tokens = open_tokenizer(spec.tokenizer, base)(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is not UTF-8 text: {error}", hint="save it as UTF-8") from error
        except InputError as error:
            raise InputError(f"{path}: {error.message}", hint=error.hint) from error
        stride = spec.stride or self._window
        first = self._window if self._pad is None else stride
        self._targets = range(first, len(self._tokens), stride)
        if not self._targets:
            raise InputError(
                f"{path}: {len(self._tokens)} tokens are too few for one window of {self._window} and its next token",
                hint="use a longer text, a shorter `window`, or `left_pad` with a smaller `stride`",
            )
        self._file = path.name

    def __len__(self) -> int:
        return len(self._targets)

    def read(self, indices: Sequence[int]) -> Iterator[Raw]:
        """Yield the windows at these places: int64 tokens [T], truth int64 []."""
        for index in indices:
            target = self._targets[index]
            start = max(0, target - self._window)
            tokens = self._tokens[start:target]
            if self._pad is not None:
                tokens = np.concatenate([np.full(self._window - len(tokens), self._pad, np.int64), tokens])
            yield Raw(
                id=f"{self._file}[{start}:{target}]",
                inputs={self._name: tokens},
                truth=np.asarray(self._tokens[target]),
            )


def _model_window(spec: DataSpec, signature: Sequence[TensorSpec]) -> tuple[str, int]:
    if len(signature) != 1 or len(signature[0].shape) != 2:
        takes = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in signature)
        raise UsageError(
            f"{spec.path}: text feeds one input [1, tokens], this model takes {takes}",
            hint="use an .npz with one array per input, or a function",
        )
    length = signature[0].shape[1]
    if length < 0 and spec.window is None:
        raise UsageError(f"{spec.path}: the model takes any length", hint="say how many tokens: `window: 64`")
    if length >= 0 and spec.window not in (None, length):
        raise UsageError(
            f"{spec.path}: `window: {spec.window}`, but the model takes {length} tokens", hint="leave it out"
        )
    return signature[0].name, spec.window or length

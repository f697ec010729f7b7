"""Text to token ids: a character vocabulary, a Hugging Face `tokenizer.json`, or a function of the user's."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, MissingExtra

from .files import check_file, resolve
from .user_function import call, is_function_reference, load_function

Ids = NDArray[np.int64]
Encode = Callable[[str], Ids]
_UNKNOWN = ("<unk>", "[UNK]", "<UNK>")  # the vocabulary keys in use for "any other character"


def open_tokenizer(tokenizer: str, base: Path) -> Encode:
    """Return text -> int64 ids [n]; InputError or MissingExtra says what is wrong."""
    path = resolve(tokenizer, base)
    if is_function_reference(tokenizer) and not path.exists():
        return _user(tokenizer, base)
    check_file(path, "tokenizer")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        hint = 'use a vocabulary {"char": id} or a Hugging Face tokenizer.json'
        raise InputError(f"{path}: is not JSON: {error}", hint=hint) from error
    if isinstance(content, dict) and content and all(type(number) is int for number in content.values()):
        return _characters(content, path)
    if isinstance(content, dict) and "model" in content:
        return _hugging_face(path)
    raise InputError(f"{path}: is no tokenizer", hint='use a vocabulary {"char": id} or a Hugging Face tokenizer.json')


def _characters(vocabulary: dict[str, int], path: Path) -> Encode:
    # GPT-2's vocab.json holds every byte as a character too: read letter by letter it would be silently wrong.
    words = [key for key in vocabulary if len(key) > 1 and key[0] not in "<["]
    if words:
        raise InputError(
            f"{path}: {words[0]!r} is no character, this is a vocabulary of words",
            hint="use the tokenizer.json that belongs to it",
        )
    unknown = next((vocabulary[key] for key in _UNKNOWN if key in vocabulary), None)

    def encode(text: str) -> Ids:
        ids = np.empty(len(text), dtype=np.int64)
        for place, character in enumerate(text):
            number = vocabulary.get(character, unknown)
            if number is None:
                line = text.count("\n", 0, place) + 1
                raise InputError(
                    f"line {line}: {path.name} has no id for {character!r}",
                    hint=f"remove the character, or add one of {', '.join(_UNKNOWN)} to the vocabulary",
                )
            ids[place] = number
        return ids

    return encode


def _hugging_face(path: Path) -> Encode:
    try:
        tokenizers: Any = import_module("tokenizers")  # optional, and checked with and without it
    except ImportError as error:
        raise MissingExtra(
            f"{path}: this tokenizer needs the package `tokenizers`",
            hint="pip install 'edge-deploy-pipeline[text]'",
        ) from error
    try:
        tokenizer: Any = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare Exception
        raise InputError(f"{path}: cannot be read as a tokenizer: {error}", hint="save it again") from error
    # A tokenizer.json may carry the padding and truncation of its training; both would falsify the windows.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return lambda text: np.asarray(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)


def _user(reference: str, base: Path) -> Encode:
    function = load_function(reference, base)

    def encode(text: str) -> Ids:
        ids = np.asarray(call(reference, function, text))
        if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
            raise InputError(
                f"{reference} returned {ids.dtype} {list(ids.shape)}", hint="return a list of whole numbers"
            )
        return ids.astype(np.int64)

    return encode

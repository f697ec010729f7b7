"""Text: tokenizers, windows and the next token."""

import importlib.util
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError, MissingExtra, UsageError
from pipeline.samples import DataSpec, open_samples
from pipeline.samples.tokenization import open_tokenizer
from targets.records import TensorSpec

LETTERS = {chr(code): code - 96 for code in range(97, 123)}


def tokens(length: int, dtype: str = "int32") -> tuple[TensorSpec, ...]:
    return (TensorSpec(name="tokens", shape=(1, length), dtype=dtype),)


@pytest.fixture
def base(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps(LETTERS))
    (tmp_path / "novel.txt").write_text("abcdefghij")
    return tmp_path


def seen(base, length, **spec):
    samples = open_samples(DataSpec(path="novel.txt", tokenizer="vocab.json", **spec), tokens(length), base)
    return [(sample.id, sample.inputs["tokens"][0].tolist(), int(sample.truth)) for sample in samples]


def test_windows_and_the_next_token(base):
    assert seen(base, 4) == [
        ("novel.txt[0:4]", [1, 2, 3, 4], 5),
        ("novel.txt[4:8]", [5, 6, 7, 8], 9),
    ]
    assert [name for name, _, _ in seen(base, 4, stride=3)] == ["novel.txt[0:4]", "novel.txt[3:7]"]
    assert len(seen(base, -1, window=9)) == 1


def test_left_padding_makes_short_contexts(base):
    assert seen(base, 4, left_pad=0, stride=3) == [
        ("novel.txt[0:3]", [0, 1, 2, 3], 4),
        ("novel.txt[2:6]", [3, 4, 5, 6], 7),
        ("novel.txt[5:9]", [6, 7, 8, 9], 10),
    ]
    assert seen(base, 40, left_pad=0, stride=9)[0][1] == [0] * 31 + list(range(1, 10))


@given(st.integers(2, 60), st.integers(1, 12), st.integers(1, 12), st.booleans())
def test_every_window_is_its_place_in_the_text(tmp_path_factory, count, window, stride, padded):
    base = tmp_path_factory.mktemp("text")
    (base / "identity.py").write_text("def encode(text):\n    return [ord(c) - 33 for c in text]\n")
    (base / "t.txt").write_text("".join(chr(33 + place) for place in range(count)))
    pad = 999 if padded else None
    spec = DataSpec(path="t.txt", tokenizer="identity.py:encode", stride=stride, left_pad=pad)
    possible = count > (stride if padded else window)
    if not possible:
        with pytest.raises(InputError, match=r"t\.txt: \d+ tokens are too few"):
            open_samples(spec, tokens(window), base)
        return
    for sample in open_samples(spec, tokens(window), base):
        row = sample.inputs["tokens"][0]
        target = int(sample.truth)
        real = row[row != 999]
        assert len(row) == window
        assert real.tolist() == list(range(target - len(real), target))
        assert len(real) == min(window, target)


def test_the_window_must_fit_the_model(base):
    for spec, length in (({}, -1), ({"window": 5}, 4)):
        with pytest.raises(UsageError, match=r"novel\.txt: .*window|novel\.txt: the model takes any length"):
            seen(base, length, **spec)
    with pytest.raises(UsageError, match=r"novel\.txt: text feeds one input \[1, tokens\]"):
        open_samples(
            DataSpec(path="novel.txt", tokenizer="vocab.json"),
            (TensorSpec(name="t", shape=(1, 4, 4), dtype="int32"),),
            base,
        )
    with pytest.raises(UsageError, match=r"novel\.txt: text needs a `tokenizer`"):
        open_samples(DataSpec(path="novel.txt"), tokens(4), base)
    with pytest.raises(UsageError, match=r"novel\.txt: the truth of a text"):
        seen(base, 4, truth="labels.txt")


def test_an_unknown_character_names_file_line_and_character(base):
    (base / "novel.txt").write_text("abc\nd")
    with pytest.raises(InputError, match=r"novel\.txt: line 1: vocab\.json has no id for '\\n'"):
        seen(base, 4)
    (base / "vocab.json").write_text(json.dumps({**LETTERS, "<unk>": 99}))
    assert seen(base, 4)[0][1] == [1, 2, 3, 99]


def test_bad_texts_and_tokenizers_are_named(base):
    (base / "novel.txt").write_bytes(b"abc\xff")
    with pytest.raises(InputError, match=r"novel\.txt: is not UTF-8"):
        seen(base, 4)
    (base / "novel.txt").write_text("abcdefghij")
    for text, message in (
        ("{", "is not JSON"),
        ("[]", "is no tokenizer"),
        ('{"a": 1, "the": 2}', "'the' is no character"),
        ('{"a": 1.5}', "is no tokenizer"),
    ):
        (base / "vocab.json").write_text(text)
        with pytest.raises(InputError, match=rf"vocab\.json: {message}"):
            seen(base, 4)
    with pytest.raises(InputError, match=r"gone\.json: there is no such tokenizer"):
        open_tokenizer("gone.json", base)


def test_a_tokenizer_function_must_return_whole_numbers(base):
    (base / "own.py").write_text(
        "def encode(text):\n    return [0.5]\n\ndef fails(text):\n    raise KeyError(text[:1])\n"
    )
    with pytest.raises(InputError, match=r"own\.py:encode returned float64"):
        open_tokenizer("own.py:encode", base)("ab")
    with pytest.raises(InputError, match=r"own\.py:5: own\.py:fails raised KeyError"):
        open_tokenizer("own.py:fails", base)("ab")


def test_token_ids_do_not_silently_become_floats(base):
    with pytest.raises(InputError, match=r"novel\.txt\[0:4\]: input 'tokens' is int64, the model takes float32"):
        list(open_samples(DataSpec(path="novel.txt", tokenizer="vocab.json"), tokens(4, "float32"), base))
    spec = DataSpec.model_validate(
        {"path": "novel.txt", "tokenizer": "vocab.json", "preprocess": [{"dtype": "float32"}]}
    )
    first = next(iter(open_samples(spec, tokens(4, "float32"), base)))
    assert first.inputs["tokens"].tolist() == [[1.0, 2.0, 3.0, 4.0]]


WORDS = {
    "version": "1.0",
    "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "[UNK]": 2}, "unk_token": "[UNK]"},
}


def test_a_hugging_face_tokenizer_is_read_or_its_package_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(WORDS))
    if importlib.util.find_spec("tokenizers") is None:
        with pytest.raises(MissingExtra) as caught:
            open_tokenizer("tokenizer.json", tmp_path)
        assert "pip install 'edge-deploy-pipeline[text]'" in caught.value.hint
        return
    # The truncation stored in the file must not cut the text.
    assert open_tokenizer("tokenizer.json", tmp_path)("a b c a").tolist() == [0, 1, 2, 0]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {}}))
    with pytest.raises(InputError, match=r"tokenizer\.json: cannot be read as a tokenizer"):
        open_tokenizer("tokenizer.json", tmp_path)


def test_the_ids_are_whole_numbers(tmp_path):
    (tmp_path / "v.json").write_text('{"a": 3}')
    assert open_tokenizer("v.json", tmp_path)("aa").dtype == np.int64

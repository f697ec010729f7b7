"""Models as they are found in the world, of every kind of source, run as a user does."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from projects import Project
from real_models import CHORDS, LETTERS, SPEECH, basic_pitch, micro_wakeword, silero, textgenrnn

from pipeline.exporters.detect import detect
from pipeline.exporters.source import open_source
from pipeline.samples.user_function import load_function

_SHORT = {"warm": "40 ms"}


def ran(folder: Path, code: str, **config: Any) -> dict[str, Any]:
    """Candidates by recipe, of a run with the functions in `code` as its data; the run passes."""
    (folder / "own.py").write_text(code)
    data = {"calibrate": "own.py:calibrate", "test": "own.py:test"}
    here = Project(folder, {"data": data, "measure": _SHORT, **config})
    done = here.run()
    assert done.status == 0, done.err
    assert "Traceback" not in done.err
    report = here.report()
    return {"chosen": report["chosen"], **{one["recipe"]: one for one in report["candidates"]}}


def test_a_voice_detector_that_went_deaf_is_caught(tmp_path: Path) -> None:
    """Its state goes from step to step, so that errors add up as they would on the device."""
    found = ran(
        tmp_path,
        SPEECH,
        source={"model": str(silero()), "state": {"stateN": "state"}},
        recipes=["onnx-float32", "onnx-dynamic-int8"],
    )
    assert found["onnx-dynamic-int8"]["verdict"] == "fail"
    assert "wrong: its answers have an SQNR of" in found["onnx-dynamic-int8"]["reason"]
    assert found["chosen"] == "onnx-float32"
    assert found["onnx-float32"]["fidelity"]["sqnr_db"] > 60
    # What is pushed is the model of one step, and it says itself which output feeds which input.
    model = onnx.load(tmp_path / "deploy-out" / found["onnx-float32"]["path"])
    assert {value.name for value in model.graph.input} == {"input", "state", "sr"}
    assert {entry.key: entry.value for entry in model.metadata_props}["edge_deploy.state"] == '{"stateN": "state"}'


def test_a_transcriber_that_int8_breaks_is_shipped_in_half_precision(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="the tensorflow extra is not installed", exc_type=ImportError)
    found = ran(
        tmp_path,
        CHORDS,
        source={"model": str(basic_pitch(""))},
        recipes=["litert-float32", "litert-float16", "litert-int8"],
        quality={"metrics": ["own.py:note_f1"]},
        budgets={"max_drop": {"note_f1": 0.02}},
        choose="size",
    )
    assert found["litert-int8"]["verdict"] == "fail"
    assert "note_f1 lost" in found["litert-int8"]["reason"] or "wrong" in found["litert-int8"]["reason"]
    assert found["chosen"] == "litert-float16"
    assert found["litert-float16"]["metrics"]["note_f1"]["value"] > 0.85


def test_one_network_answers_alike_from_each_of_its_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="the tensorflow extra is not installed", exc_type=ImportError)
    (tmp_path / "own.py").write_text(CHORDS)
    sound, _ = load_function("own.py:chord", tmp_path)(3)
    answers = []
    for number, kind in enumerate(("", ".tflite", ".onnx")):
        path = basic_pitch(kind)
        scratch = tmp_path / str(number)
        scratch.mkdir()
        source = open_source(detect(path), path, signature="serving_default", scratch=scratch)
        [given] = source.inputs
        assert given.shape == (-1, 43844, 1)
        source.fix_shapes({given.name: (1, 43844, 1)})
        by_size = sorted(source.run({given.name: sound[None]}).values(), key=lambda array: (array.size, array.sum()))
        answers.append(np.concatenate([array.ravel() for array in by_size]))
    assert np.ptp(answers[0]) > 0.5
    for other in answers[1:]:
        np.testing.assert_allclose(other, answers[0], atol=1e-5)


def test_a_tflite_file_is_quantized_without_tensorflow(tmp_path: Path) -> None:
    path = basic_pitch(".tflite")
    found = ran(tmp_path, CHORDS, source={"model": str(path)}, recipes=["litert-float32", "litert-int8"])
    assert found["litert-float32"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found["litert-int8"]["ops_quantized"]["CONV_2D"] > 20
    assert 5 < found["litert-int8"]["fidelity"]["sqnr_db"] < 20  # what int8 makes of this network from any source


def test_weights_of_a_language_model_with_the_code_that_builds_it(tmp_path: Path) -> None:
    pytest.importorskip("tf_keras", reason="the tensorflow extra is not installed", exc_type=ImportError)
    weights = textgenrnn()
    shutil.copyfile(weights.parent / "textgenrnn_vocab.json", tmp_path / "vocabulary.json")
    shutil.copyfile(Path(__file__).parents[2] / "LICENSE", tmp_path / "text.txt")
    found = ran(
        tmp_path,
        LETTERS,
        source={"model": str(weights), "factory": "own.py:net"},
        recipes=["litert-float32", "litert-dynamic-int8", "litert-int8"],
        quality={"metrics": [{"path": "own.py:next_letter", "better": "lower", "unit": "bits"}]},
        budgets={"max_drop": {"next_letter": 0.2}},
        choose="size",
    )
    bits = {name: one["metrics"]["next_letter"]["value"] for name, one in found.items() if name != "chosen"}
    assert bits["litert-float32"] < 4 < 8  # the LSTM starts anew for each sample: else it takes 6.6
    assert found["chosen"] == "litert-dynamic-int8"
    assert found["litert-int8"]["verdict"] in ("fail", "refused")


WAKE = """
import numpy as np


def _sounds(seed, count):
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield {"input_audio": random.normal(0, 13, (3, 40)).astype(np.float32)}


def calibrate():
    return _sounds(1, 2)


def test():
    return _sounds(2, 4)
"""


def test_a_wake_word_that_is_quantized_already_is_deployed_as_it_is(tmp_path: Path) -> None:
    """Its state is in resource variables: the host and the device both begin each sample as the model says."""
    path = micro_wakeword("hey_mycroft")
    found = ran(tmp_path, WAKE, source={"model": str(path)})
    assert found["chosen"] == "litert-as-is"
    assert set(found) == {"chosen", "litert-as-is"}
    one = found["litert-as-is"]
    assert one["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert one["targets"]["local"]["answer"]["max_steps"] == 0
    assert one["ops_quantized"]["CONV_2D"] == 5
    assert json.dumps(one["inputs"]).count("int8") == 1

"""Every TFLite file of three packages is looked at, judged for old and new runtimes, and goes the whole way or is
refused in words: no crash."""

import hashlib
from pathlib import Path

import pytest
from device_facts import facts_of
from real_models import MEDIAPIPE, MICRO_WAKEWORD, OPEN_WAKEWORD, tflite_files

from pipeline.errors import DeployError, InputError
from pipeline.exporters.detect import detect
from pipeline.fit.judge import judge
from pipeline.worker import JobRaised, Worker

# Ops of MediaPipe's own runtime.
_CUSTOM = {"face_landmark_with_attention": "Landmarks2TransformMatrix"}
_DELEGATED = {"selfie_segmentation", "selfie_segmentation_landscape"}  # Convolution2DTransposeBias: XNNPACK has it
# ai-edge-quantizer gives the one a zero point where LiteRT wants none, and no ranges to the inner graphs of the other.
_NO_INT8 = {"hand_recrop": "LiteRT does not load it", "hey_jarvis": "not found in tensor_name_to_qsv"}
# These take more than is worth it here, and hold nothing that the others do not.
_LARGE_BYTES = 1_400_000


def outcome(worker: Worker, model: Path, folder: Path) -> dict[str, str]:
    kind = detect(model)
    recipes = ("litert-as-is",) if kind == "quantized_tflite" else ("litert-float32", "litert-int8")
    found: dict[str, str] = worker.call("model_jobs:whole_way", kind=kind, model=model, folder=folder, recipes=recipes)
    return found


@pytest.mark.parametrize("package", [MEDIAPIPE, MICRO_WAKEWORD, OPEN_WAKEWORD])
def test_every_tflite_file_of_a_package(worker: Worker, tmp_path: Path, package: str) -> None:
    new = facts_of(runtimes={"ai-edge-litert": "2.3.0"})
    old = facts_of(runtimes={"tflite-runtime": "2.14.0"}, numpy="1.26.4")
    files = tflite_files(package)
    assert len(files) == {MEDIAPIPE: 14, MICRO_WAKEWORD: 4, OPEN_WAKEWORD: 7}[package]
    for name, model in files.items():
        folder = tmp_path / name
        folder.mkdir()
        described = worker.call("pipeline.fit.describe:describe", model=model)
        answers = [judge(described, facts) for facts in (new, old)]
        if name in _DELEGATED:
            assert [fit.answer for fit in answers] == ["unsure", "unsure"], name
        elif name in _CUSTOM:
            assert [fit.answer for fit in answers] == ["no", "no"], name
            assert all("custom operators" in fit.text and _CUSTOM[name] in fit.text for fit in answers)
            with pytest.raises(DeployError, match=_CUSTOM[name]) as caught:
                outcome(worker, model, folder)
            assert not isinstance(caught.value, JobRaised) and "has that op" in caught.value.hint
            continue
        else:
            assert [fit.text for fit in answers] == ["fits", "fits"], name
        if model.stat().st_size > _LARGE_BYTES:
            continue
        if name == "melspectrogram":  # random samples of two values are too short for its window
            with pytest.raises(InputError, match=r"does not take inputs of \[1, 2\]"):
                outcome(worker, model, folder)
            continue
        found = outcome(worker, model, folder)
        assert not found.get("litert-as-is") and not found.get("litert-float32"), (name, found)
        for reason in filter(None, found.values()):
            assert name in _NO_INT8 and _NO_INT8[name] in reason, (name, reason)
        # Whoever quantized it, or wrote it with shapes that are fixed, gets it back as it was.
        kept = next(
            path for path in (folder / "litert-as-is.tflite", folder / "litert-float32.tflite") if path.exists()
        )
        if name not in ("embedding_model", "hey_jarvis"):  # a batch of 1; tensors of one name
            assert hashlib.sha256(kept.read_bytes()).digest() == hashlib.sha256(model.read_bytes()).digest(), name

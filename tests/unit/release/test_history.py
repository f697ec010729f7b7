"""Numbers are taken once, and what changed is found."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from released import manifest

from pipeline import codec
from pipeline.release.diff import difference
from pipeline.release.history import History
from pipeline.release.records import ReleaseEntry
from pipeline.release.series import line


def _entry(sequence: int) -> ReleaseEntry:
    text = codec.encode(manifest(sequence=sequence)).decode()
    return ReleaseEntry(date="2026-11-25T11:00:00+00:00", id="", manifest=text, signature="", signed_by="", texts={})


def test_two_at_once_never_get_one_number(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = [n for n, _ in pool.map(lambda _: History(tmp_path, "net").add_release(_entry), range(40))]
    assert sorted(taken) == list(range(1, 41))
    kept = History(tmp_path, "net").releases()
    assert all(codec.decode(dict, entry.manifest.encode())["sequence"] == number for number, entry in kept.items())
    assert History(tmp_path, "net").add_release(_entry, at_least=100)[0] == 100
    assert History(tmp_path, "net").add_release(_entry, at_least=7)[0] == 101


def test_what_changed() -> None:
    before = manifest()
    model = replace(before.classes["default"], recipe="onnx-float32", runtime={"onnxruntime": "1.24.0"})
    after = replace(before, sequence=2, content="d" * 64, classes={"default": model}, settings={"choose": "size"})
    found = {(c.section, c.key): (c.before, c.after) for c in difference(before, after).changes}
    assert found == {
        ("recipe", "recipe"): ("onnx-int8", "onnx-float32"),
        ("tools", "onnxruntime on the device"): ("1.23.0", "1.24.0"),
        ("settings", "choose"): ("latency", "size"),
    }
    assert difference(before, replace(before, sequence=2)).same_content


def test_a_line_of_bars() -> None:
    assert line([1.0, None, 8.0, 4.5]) == "▁·█▅"
    assert line([2.0, 2.0]) == "▁▁"
    assert line([None]) == "·"

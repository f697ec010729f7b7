"""deploy.yaml: every mistake is told with the line and the key as they stand in the file."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import config_schema
from pipeline.config_file import LoadedConfig, load_config
from pipeline.errors import UsageError

BASE = "source: {model: net.onnx}\ndata:\n  calibrate: a.npz\n  test: b.npz\n"  # four lines
CASES: dict[str, tuple[str, str]] = {
    # What is written after BASE, and the error after `deploy.yaml:`.
    "unknown": ("recipe: [onnx-int8]", "5: recipe: unknown key, did you mean 'recipes'?"),
    "nested": ("measure:\n  wram: 1 s", "6: measure.wram: unknown key, did you mean 'warm'?"),
    "in data": ("  preproces: []", "5: data.preproces: unknown key, did you mean 'preprocess'?"),
    "nothing near": ("measure: {zzz: 1}", "5: measure.zzz: unknown key; here there are warm, min_samples, max_samples"),
    "step": ("  preprocess:\n  - scael: 1", "6: data.preprocess[0]: unknown step `scael`: did you mean `scale`?"),
    "second step": (
        "  preprocess:\n  - grayscale\n  - resize: {size: 8, fliter: area}",
        "7: data.preprocess[1].resize.fliter: unknown key, did you mean 'filter'?",
    ),
    "short form": (
        "  preprocess:\n  - scale: much",
        "6: data.preprocess[0].scale: `much` is neither a number nor a fraction such as 1/255",
    ),
    "filter": (
        "  preprocess: [{resize: {size: 8, filter: cubic}}]",
        "5: data.preprocess[0].resize.filter: should be 'nearest', 'bilinear', 'bicubic', 'lanczos' or 'area', "
        "not 'cubic', did you mean 'bicubic'?",
    ),
    "by input": ("  preprocess:\n    x:\n    - sclae: 1", "7: data.preprocess.x[0]: unknown step `sclae`"),
    "an input called as a step": (
        "  preprocess:\n    scale:\n    - resize: {size: 8, keep: 1}",
        "7: data.preprocess.scale[0].resize.keep: unknown key, did you mean 'keep_aspect'?",
    ),
    "order": ("  preprocess: [{layout: nchw}, {resize: 8}]", "5: data.preprocess: `resize` reads [height, width"),
    "truth step": ("  truth:\n    image:\n    - sclae: 1", "7: data.truth.image[0]: unknown step `sclae`"),
    "truth key": ("  truth:\n    folder: x\n    step: []", "7: data.truth.step: unknown key"),
    "truth form": ("  truth: {pic: x}", "5: data.truth: should be a path, folders, next-token"),
    "part key": ("  seed: 1\n", "5: data.seed: unknown key"),
    "metric": (
        "quality:\n  metrics:\n  - ssim\n  - psnry",
        "8: quality.metrics[1]: unknown metric 'psnry', did you mean 'psnr-y'?",
    ),
    "metric key": ("quality:\n  metrics:\n  - {name: psnr, data_rang: 1}", "7: quality.metrics[0].data_rang: unknown"),
    "metric option": ("quality:\n  metrics:\n  - {name: top1, data_range: 1}", "7: quality.metrics[0]: metrics: top1"),
    "metric file": ("quality:\n  metrics:\n  - q.py:f", "7: quality.metrics[0]: there is no file q.py"),
    "metric by path": ("quality:\n  metrics:\n  - {path: 'q.py:f'}", "7: quality.metrics[0]: there is no file q.py"),
    "metric form": ("quality: {metrics: [3]}", "5: quality.metrics[0]: should be keys with values"),
    "unit": ("budgets:\n  size: 2 parsecs", "6: budgets.size: '2 parsecs' is not a positive quantity"),
    "drop": (
        "budgets:\n  max_drop: {tpo1: 1}\nquality: {metrics: [top1]}",
        "6: budgets.max_drop.tpo1: nothing measures",
    ),
    "drop number": (
        "budgets:\n  max_drop: {cosine: much}",
        "6: budgets.max_drop.cosine: should be a number, not 'much'",
    ),
    "choose": (
        "choose: sise",
        "5: choose: should be 'latency', 'size', 'memory', 'energy' or 'quality', not 'sise', did",
    ),
    "recipe": (
        "recipes:\n- onnx-int8\n- onnx-int9",
        "7: recipes: there is no recipe 'onnx-int9', did you mean 'onnx-int8'?",
    ),
    "recipe twice": ("recipes:\n- onnx-int8\n- onnx-int8", "7: recipes: 'onnx-int8' stands twice"),
    "no list": ("recipes: onnx-int8", "5: recipes: should be a list, such as [a, b], not 'onnx-int8'"),
    "no target": ("targets: {}", "5: targets: should have 1 or more, has 0"),
    "target list": ("targets: [pi]", "5: targets: should be keys with values, such as {key: value}, not a list"),
    "target text": ("targets:\n  pi: me@pi", "6: targets.pi: should be keys with values, such as {host: pi.local"),
    "target key": ("targets:\n  pi:\n    host: h\n    usr: me", "8: targets.pi.usr: unknown key, did you mean 'user'?"),
    "local key": ("targets:\n  me:\n    thread: 2", "7: targets.me.thread: unknown key, did you mean 'threads'?"),
    "transport": ("targets:\n  pi:\n    transport: telnet", "6: targets.pi: unknown transport 'telnet'"),
    "no host": ("targets:\n  pi: {transport: ssh}", "6: targets.pi.host: is required"),
    "port": ("targets:\n  pi: {host: h, port: 99999}", "6: targets.pi.port: should be less than or equal to 65535"),
    "duplicate": ("choose: size\nchoose: size", '6: duplicate key "choose"'),
    "brackets": ("recipes: [onnx-int8\nchoose: size", "6: "),
    "alias": ("recipes: *none", "5: found undefined alias"),
}


def error_of(tmp_path: Path, text: str) -> UsageError:
    (tmp_path / "deploy.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load_config(tmp_path / "deploy.yaml")
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("case", CASES)
def test_a_mistake(tmp_path: Path, case: str) -> None:
    text, said = CASES[case]
    error = error_of(tmp_path, BASE + text + "\n")
    assert error.message.startswith(f"{tmp_path / 'deploy.yaml'}:{said}")
    assert "\n" not in error.message
    for word in ("function", "Part", "Target]", "Config", "builtin", "steps.", "by input", "dictionary", "tuple"):
        assert word not in error.message.removeprefix(str(tmp_path))


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    error = error_of(tmp_path, "source: {modle: m}\ndata: {calibrate: 3, test: {path: b, limt: 1}}\nchose: size\n")
    assert [line.removeprefix(f"{tmp_path}/deploy.yaml:") for line in error.message.splitlines()] == [
        "1: source.model: is required",
        "1: source.modle: unknown key, did you mean 'model'?",
        "2: data.calibrate: should be a path, `file.py:function`, or {path: …, limit: …}",
        "2: data.test.limt: unknown key, did you mean 'limit'?",
        "3: chose: unknown key, did you mean 'choose'?",
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", ":1: the file is empty or no mapping"),
        (b"- a\n- b\n", ":1: the file is empty or no mapping"),
        (b"just text\n", ":1: the file is empty or no mapping"),
        (b"a:\n\tb: 1\n", ":2: found character '\\t'"),
        (b"source: \xff\xfe\n", ": cannot be read: "),
    ],
)
def test_no_configuration_at_all(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "deploy.yaml").write_bytes(data)
    with pytest.raises(UsageError) as caught:
        load_config(tmp_path / "deploy.yaml")
    assert caught.value.message.startswith(f"{tmp_path / 'deploy.yaml'}{said}")


WHOLE: dict[str, Any] = {
    "name": "net",
    "source": {"model": "net.onnx", "inputs": {"image": [1, 8, 8, 3]}, "signature": "s", "opset": 17},
    "data": {
        "calibrate": {"path": "a", "limit": 3, "seed": 1},
        "test": "b",
        "preprocess": [
            {"resize": {"size": [8, 8], "filter": "area"}},
            {"crop": {"top": 0, "left": 0, "height": 8, "width": 8}},
            {"mean_std": {"mean": [0.5], "std": [0.5]}},
        ],
        "truth": {"folder": "t", "preprocess": [{"pad": {"size": 8, "value": 0}}]},
        "stride": 1,
    },
    "recipes": ["onnx-int8"],
    "quality": {"metrics": ["ssim", {"name": "psnr", "data_range": 1.0}]},
    "measure": {"warm": "1 s", "min_samples": 3, "max_samples": 9},
    "budgets": {"size": "1 MB", "latency_p90": "5 ms", "max_drop": {"ssim": 0.1, "cosine": 0.1}, "min_fidelity_db": 5},
    "choose": "size",
    "targets": {"me": {"threads": 2}, "pi": {"host": "h", "user": "u", "port": 22, "connect_timeout": "3 s"}},
}
_FREE = {("source", "inputs"), ("budgets", "max_drop"), ("targets",)}  # here the user chooses the keys


def keys_of(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every key of ours in the document."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(node, dict) and above not in _FREE:
            yield (*above, key)
        yield from keys_of(value, (*above, key))


def load(tmp_path: Path, document: dict[str, Any]) -> LoadedConfig:
    (tmp_path / "deploy.yaml").write_text(json.dumps(document, indent=1))  # JSON is YAML
    return load_config(tmp_path / "deploy.yaml")


def test_the_whole_document_is_taken(tmp_path: Path) -> None:
    loaded = load(tmp_path, WHOLE)
    assert loaded.config.measure.warm == 1.0
    assert loaded.config.budgets.size == 1e6
    assert loaded.budgets_as_written["max_drop"] == "ssim 0.1, cosine 0.1"
    me, pi = loaded.target_specs()
    assert (me.transport, me.threads, pi.transport, pi.connect_timeout_s) == ("local", 2, "ssh", 3.0)
    assert loaded.base == tmp_path


@pytest.mark.parametrize("place", list(keys_of(WHOLE)), ids=lambda place: ".".join(map(str, place)))
def test_any_key_misspelt_is_named_where_it_stands(tmp_path: Path, place: tuple[Any, ...]) -> None:
    document = copy.deepcopy(WHOLE)
    node: Any = document
    for part in place[:-1]:
        node = node[part]
    wrong = f"{place[-1]}q"
    for key in list(node):  # keeps the order
        value = node.pop(key)
        node[wrong if key == place[-1] else key] = value
    with pytest.raises(UsageError) as caught:
        load(tmp_path, document)
    lines = (tmp_path / "deploy.yaml").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if f'"{wrong}"' in text)
    # A step stands where its braces open; which form of truth was meant cannot be known without its key.
    nearby, words = (line, line - 1), ((wrong, place[-1]) if place[-2:] != ("truth", "folder") else ("data.truth: ",))
    told = [text for text in caught.value.message.splitlines() if words[0] in text]
    assert any(text.startswith(f"{tmp_path / 'deploy.yaml'}:{near}: ") for near in nearby for text in told), told
    assert all(word in told[0].removeprefix(str(tmp_path)) for word in words)


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    document = {**WHOLE, "targets": {"pi": {"host": "h", "identity_file": "keys/id"}}}
    [spec] = load(tmp_path, document).target_specs()
    assert spec.identity_file == str(tmp_path / "keys" / "id")


def test_a_phone_is_given_by_its_serial_or_its_address(tmp_path: Path) -> None:
    wifi = {"transport": "adb", "host": "10.0.0.7", "port": 37001, "libraries": "app.aar"}
    targets = {"usb": {"serial": "28A1FDH2"}, "wifi": wifi, "any": {"transport": "adb"}}
    usb, over_wifi, anything = load(tmp_path, {**WHOLE, "targets": targets}).target_specs()
    assert (usb.transport, usb.serial, usb.host) == ("adb", "28A1FDH2", "")
    assert (over_wifi.transport, over_wifi.host, over_wifi.port) == ("adb", "10.0.0.7", 37001)
    assert over_wifi.libraries == str(tmp_path / "app.aar")
    assert (anything.transport, anything.serial, anything.host) == ("adb", "", "")
    with pytest.raises(UsageError, match="two ways to the same device"):
        load(tmp_path, {**WHOLE, "targets": {"both": {"serial": "28A1FDH2", **wifi}}})
    with pytest.raises(UsageError, match="user"):
        load(tmp_path, {**WHOLE, "targets": {"usb": {"serial": "28A1FDH2", "user": "pi"}}})


def test_the_schema_for_editors_names_every_key() -> None:
    text = json.dumps(config_schema())
    for place in keys_of(WHOLE):
        assert f'"{place[-1]}"' in text, place

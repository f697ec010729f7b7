"""Tables of `module:attribute`, and what other packages add to them."""

import importlib
from pathlib import Path
from typing import get_args

import pytest
from projects import distribution

from pipeline.errors import EnvironmentFault
from pipeline.plugins import load_plugin, versions, with_entry_points
from pipeline.recipes import RECIPES
from pipeline.recipes.recipe import Start, recipe


def test_entry_points_add_but_never_replace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = "[edge_deploy.tests]\nmine = my_module:ONE\nbuilt-in = my_module:TWO\n"
    distribution(tmp_path, "added", points, {"my_module": "ONE, TWO = 1, 2\n"})
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    table = with_entry_points({"built-in": "json:dumps"}, "edge_deploy.tests")
    assert table == {"mine": "my_module:ONE", "built-in": "json:dumps"}
    assert load_plugin(table["mine"]) == 1
    assert versions("added", "numpy", "no-such-distribution") == {"added": "1.0", "numpy": versions("numpy")["numpy"]}


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("no_such_module:X", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("json:nothing", "AttributeError"),
        ("raising_module:X", "ZeroDivisionError"),
    ],
)
def test_a_recipe_that_cannot_be_loaded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, said: str
) -> None:
    (tmp_path / "raising_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(RECIPES, "onnx-odd", place)
    with pytest.raises(EnvironmentFault) as caught:
        recipe("onnx-odd")
    assert caught.value.message.startswith(f"recipe onnx-odd: {place} cannot be loaded: {said}")
    assert "edge_deploy.recipes" in caught.value.hint


def test_every_recipe_names_what_decides_its_result() -> None:
    for name in RECIPES:
        found = recipe(name)
        assert found.format == {"litert": "tflite", "onnx": "onnx", "torch": "pt"}[name.partition("-")[0]]
        assert found.start in get_args(Start)
        assert set(versions(*found.tools)) == set(found.tools) or "tensorflow" in found.tools
        assert found.why_float("CONV_2D")

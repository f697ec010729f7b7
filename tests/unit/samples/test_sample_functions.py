"""Samples from a function of the user's, and how its mistakes are reported."""

import sys

import numpy as np
import pytest

from pipeline.errors import InputError, UsageError
from pipeline.samples import DataSpec, open_samples
from pipeline.samples.user_function import load_function
from targets.records import TensorSpec

X = (TensorSpec(name="x", shape=(1, 2), dtype="float32"),)


@pytest.fixture
def write(tmp_path):
    def to_file(body: str, name: str = "loader.py") -> None:
        (tmp_path / name).write_text("import numpy as np\n\n" + body)

    return to_file


def opened(base, reference="loader.py:samples", **spec):
    return open_samples(DataSpec(path=reference, **spec), X, base)


def test_with_and_without_batch_axis_and_truth(tmp_path, write):
    write(
        "def samples():\n"
        "    yield {'x': np.array([0, 1], np.float32)}\n"
        "    yield {'x': np.array([[2, 3]], np.float32)}, 5\n"
    )
    first, second = opened(tmp_path)
    assert (first.id, first.truth) == ("loader.py:samples[0]", None)
    assert second.inputs["x"].tolist() == [[2, 3]]
    assert second.truth == 5


def test_limit_reads_the_same_seeded_places(tmp_path, write):
    write("def samples():\n    for i in range(50):\n        yield {'x': np.array([i, 0], np.float32)}\n")
    chosen = [sample.id for sample in opened(tmp_path, limit=5, seed=3)]
    assert chosen == [sample.id for sample in opened(tmp_path, limit=5, seed=3)]
    assert chosen != [sample.id for sample in opened(tmp_path, limit=5, seed=4)]
    places = [int(name.partition("[")[2][:-1]) for name in chosen]
    assert places == sorted(places)
    assert len(set(places)) == 5


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "def samples():\n    yield {'x': [1.0]}\n    raise RuntimeError('disk')\n",
            r"loader\.py:5: .*RuntimeError: disk",
        ),
        ("def samples():\n    return 1 / 0\n", r"loader\.py:4: .*ZeroDivisionError"),
        ("def samples():\n    return {'x': [1.0, 2.0]}\n", "returned dict"),
        ("def samples():\n    return None\n", "returned NoneType"),
        ("def samples():\n    return []\n", "yielded no samples"),
        ("def samples():\n    yield np.zeros(2)\n", r"samples\[0\]: got ndarray"),
        ("def samples():\n    yield {'x': np.zeros((3, 2))}\n", r"samples\[0\]: input 'x' has a batch axis of 3"),
        ("def samples():\n    yield {'x': [[1.0], [1.0, 2.0]]}\n", r"samples\[0\]: 'x' is no array"),
        ("def samples():\n    yield {'x': ['a', 'b']}\n", r"samples\[0\]: 'x' has the type"),
        ("def samples():\n    yield {'y': [1.0, 2.0]}\n", r"samples\[0\]: the input 'x' is missing"),
        ("def samples():\n    yield {'x': [1.0, 2.0], 'y': 0}\n", r"samples\[0\]: the model has no input 'y'"),
    ],
)
def test_mistakes_name_the_line_or_the_sample(tmp_path, write, body, message):
    write(body)
    with pytest.raises(InputError, match=message) as caught:
        list(opened(tmp_path))
    assert caught.value.hint


def test_a_function_that_yields_something_else_the_second_time(tmp_path, write):
    write("runs = []\n\ndef samples():\n    runs.append(0)\n    yield {'x': [1.5, len(runs)]}\n")
    samples = opened(tmp_path)
    samples.summary()
    with pytest.raises(InputError, match=r"loader\.py:samples\[0\]: changed between two passes"):
        list(samples)


def test_a_function_that_yields_less_the_second_time(tmp_path, write):
    write(
        "runs = [3]\n\ndef samples():\n    for i in range(runs[0]):\n        yield {'x': [i, 0.5]}\n    runs[0] -= 1\n"
    )
    samples = opened(tmp_path)
    with pytest.raises(InputError, match="fewer samples than the 3"):
        list(samples)


def test_truth_is_the_functions_own(tmp_path, write):
    write("def samples():\n    yield {'x': [1.0, 2.0]}\n")
    with pytest.raises(UsageError, match="brings its own truth"):
        opened(tmp_path, truth="labels.csv")


def test_modules_and_neighbours_are_found(tmp_path, write):
    write("from neighbour_of_loader import VALUE\n\ndef value():\n    return VALUE\n")
    (tmp_path / "neighbour_of_loader.py").write_text("VALUE = 4\n")
    (tmp_path / "module_of_user.py").write_text("def value():\n    return 5\n")
    before = list(sys.path)
    assert load_function("loader.py:value", tmp_path)() == 4
    assert load_function("module_of_user:value", tmp_path)() == 5
    assert sys.path == before


def test_functions_that_cannot_be_loaded(tmp_path, write):
    write("def samples():\n    yield\n")
    write("raise OSError('no data here')\n", "broken.py")
    write("def f(:\n", "typo.py")
    with pytest.raises(UsageError, match="no function 'smaples'") as caught:
        load_function("loader.py:smaples", tmp_path)
    assert "samples" in caught.value.hint
    with pytest.raises(InputError, match=r"broken\.py:3: .*OSError: no data here"):
        load_function("broken.py:f", tmp_path)
    with pytest.raises(InputError, match=r"typo\.py:3: .*SyntaxError"):
        load_function("typo.py:f", tmp_path)
    with pytest.raises(InputError, match=r"gone\.py: there is no such file"):
        load_function("gone.py:f", tmp_path)
    with pytest.raises(UsageError, match="no module 'surely_not_there'"):
        load_function("surely_not_there:f", tmp_path)
    with pytest.raises(UsageError, match="is no function"):
        load_function("json", tmp_path)


def test_a_module_that_exits_does_not_end_the_run(tmp_path, write):
    write("import sys\nsys.exit(3)\n", "exits.py")
    with pytest.raises(InputError, match=r"exits\.py:4: importing exits\.py raised SystemExit: 3"):
        load_function("exits.py:f", tmp_path)
    write("def samples():\n    yield {'x': [1.0, 2.0]}\n    raise SystemExit(4)\n")
    with pytest.raises(InputError, match=r"loader\.py:5: .*SystemExit: 4"):
        opened(tmp_path)


def test_two_files_of_one_name_are_two_modules(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text(f"def which():\n    return {folder!r}\n")
    functions = [load_function(f"{folder}/same.py:which", tmp_path) for folder in ("a", "b")]
    assert [function() for function in functions] == ["a", "b"]


def test_a_truth_array_is_kept_as_given(tmp_path, write):
    write("def samples():\n    yield {'x': [1.0, 2.0]}, np.arange(6).reshape(2, 3)\n")
    [sample] = opened(tmp_path)
    assert np.array_equal(sample.truth, np.arange(6).reshape(2, 3))

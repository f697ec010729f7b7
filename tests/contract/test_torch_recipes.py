"""PyTorch's own recipes: what they quantize, what they say they left, and that the file is the same each time."""

from pathlib import Path

import numpy as np
import pytest
from test_torch_sources import DATA, FUNCTIONS, NETS, prepare, write_samples

from pipeline.errors import ConversionFailed
from pipeline.quality.fidelity import Fidelity
from pipeline.quality.outputs import OutputsReader
from pipeline.recipes import RECIPES
from pipeline.recipes.recipe import recipe
from pipeline.runtimes.runtime import open_model
from pipeline.samples import open_samples
from pipeline.worker import Worker

# Recipe -> least SQNR in dB against the float model.
EXPECTED = {"torch-float32": 100.0, "torch-dynamic-int8": 30.0, "torch-dynamic-int8-qnnpack": 30.0}


def quantize(worker: Worker, folder: Path, prepared: dict[str, object], name: str) -> tuple[Path, dict[str, object]]:
    output = folder / f"{name}.pt"
    made = worker.call(
        "pipeline.stages.candidate_jobs:quantize",
        name=name,
        source=folder / "model",
        float_model=folder / "pt" / "model",
        ranges=None,
        calibrate=DATA.spec("calibrate"),
        inputs=prepared["inputs"],
        base=folder,
        precisions={},
        repairs=(),
        output=output,
        scratch=folder,
    )
    return output, made


def test_every_recipe_is_here() -> None:
    built_in = {name for name, place in RECIPES.items() if place.startswith("pipeline.")}
    assert set(EXPECTED) == {name for name in built_in if recipe(name).format == "pt"}


def test_lstm_gru_and_linear(worker: Worker, tmp_path: Path) -> None:
    inputs, outputs = FUNCTIONS["tokens"]
    write_samples(tmp_path, inputs)
    prepared = prepare(worker, tmp_path, f"{NETS}:tokens")
    (tmp_path / "pt").mkdir()
    worker.call("pipeline.stages.torch_jobs:to_pt", source=tmp_path / "model", scratch=tmp_path / "pt")
    sizes, answers = {}, {}
    for name, least_db in EXPECTED.items():
        output, made = quantize(worker, tmp_path, prepared, name)
        before = output.read_bytes()
        assert quantize(worker, tmp_path, prepared, name)[0].read_bytes() == before, "the same bytes each time"
        model = open_model("pt", output)
        assert (model.inputs, model.outputs) == (made["inputs"], made["outputs"])
        assert {spec.name: (spec.shape, spec.dtype) for spec in model.inputs} == {"tokens": ((1, 3), "int64")}
        assert {spec.name: spec.shape for spec in model.outputs} == outputs
        fidelity, reference = Fidelity(), OutputsReader(tmp_path / "reference")
        for number, sample in enumerate(open_samples(DATA.spec("test"), prepared["inputs"], tmp_path)):
            answers[name] = model.answer(sample.inputs)
            fidelity.update(answers[name], reference.read("test", number))
        assert fidelity.result()["sqnr_db"] >= least_db, name
        sizes[name] = len(before)
        if name != "torch-float32":
            assert made["ops_quantized"] == {"linear_dynamic": 1, "quantized_gru": 1, "quantized_lstm": 1}
            assert "embedding" in {ops.op for ops in made["ops_left_float"]}
            assert all("Linear, LSTM and GRU" in ops.reason for ops in made["ops_left_float"])
        else:
            assert made["ops_quantized"] == {}
    assert sizes["torch-dynamic-int8"] < 0.45 * sizes["torch-float32"], "all but the embedding is a quarter as large"
    # The engines round activations to 7 and 8 bits: what the host is shown must be what the device computes.
    x86, qnnpack = answers["torch-dynamic-int8"], answers["torch-dynamic-int8-qnnpack"]
    assert any(not np.array_equal(x86[name], qnnpack[name]) for name in x86)


def test_nothing_to_quantize_is_said(worker: Worker, tmp_path: Path) -> None:
    write_samples(tmp_path, FUNCTIONS["image"][0])
    prepared = prepare(worker, tmp_path, f"{NETS}:image")
    with pytest.raises(ConversionFailed, match="nothing was quantized: the model has no Linear, LSTM or GRU") as caught:
        quantize(worker, tmp_path, prepared, "torch-dynamic-int8")
    assert "litert-int8" in caught.value.hint

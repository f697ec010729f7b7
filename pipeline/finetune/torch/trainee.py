"""A torch.export program to be fine-tuned; the same program with other weights comes out."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import ConversionFailed
from pipeline.exporters.torch_program import examples, read_program
from pipeline.finetune.settings import Origin
from pipeline.finetune.torch.losses import truth_loss
from pipeline.finetune.torch.network import TorchNetwork
from pipeline.finetune.torch.quantized_program import quantized_program, write_back
from pipeline.finetune.trainee import Ranges
from pipeline.finetune.training import Array

_WITHOUT = "the recipes without `qat` take this model"


class TorchTrainee:
    """What `prepare` saved is all that is needed: the user's code is not run again."""

    batch: int | None = None  # each sample is a call of its own, vectorized

    def __init__(self, origin: Origin, weight_bits: int) -> None:
        self._origin, self._program = origin, read_program(origin.prepared)
        try:
            self._quantized = quantized_program(self._program, weight_bits=weight_bits)
        except Exception as error:  # ours, and whatever torch raises where it makes a graph functional
            said = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ConversionFailed(f"this model cannot be fine-tuned: {said[:300]}", hint=_WITHOUT) from error
        self._names = list(examples(self._program))
        self.untrained = self._quantized.untrained
        self.sample_bytes = self._quantized.sample_bytes
        self.weight_bytes = sum(made.weight.numel() * 4 for _, made in self._quantized.kernels)

    def joined(self, rows: Sequence[Array]) -> Array:
        return np.stack(rows)

    def network(self, *, loss: str, base: Path, truths: Array | None, calibrated: Ranges) -> TorchNetwork:
        names = [spec.name for spec in self._origin.outputs]
        return TorchNetwork(self._quantized, truth_loss(loss, base, names, truths), calibrated)

    def seen(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        mode = self._quantized.mode
        kept = [(layer.low, layer.high) for layer in self._quantized.learned]
        mode.quantizing, mode.observing = False, True
        with torch.no_grad():
            self._quantized.module(*(torch.from_numpy(np.array(inputs[name])) for name in self._names))
        mode.observing = False
        found = {layer.name: layer.seen for layer in self._quantized.learned}
        for layer, (low, high) in zip(self._quantized.learned, kept, strict=True):
            layer.seen, layer.low, layer.high = None, low, high
        return {name: values for name, values in found.items() if values is not None}

    def settle(self) -> Ranges:
        write_back(self._quantized, self._program)
        with torch.no_grad():
            ranges = {layer.name: layer.range() for layer in self._quantized.learned}
        return {name: (float(low), float(high)) for name, (low, high) in ranges.items()}

    def save(self, first: Mapping[str, Array]) -> dict[str, Array]:
        written = io.BytesIO()  # into a file, the archive would carry that file's name
        torch.export.save(self._program, written)
        (self._origin.scratch / "model").write_bytes(written.getvalue())
        with torch.no_grad():
            given = {name: torch.from_numpy(np.array(first[name])) for name in self._names}
            answers = self._program.module(check_guards=False)(**given)
        return {str(name): answer.numpy() for name, answer in answers.items()}

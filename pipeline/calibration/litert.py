"""Tensors of a float `.tflite` while it runs."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from pipeline.calibration.ranges import Array
from pipeline.runtimes.litert import LiteRTModel


class LiteRTObserver:
    """XNNPACK stays on: a delegate that is asked to preserve all tensors writes the ones between ops too."""

    def __init__(self, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "for debugging purposes only": it is what we are doing
            self._model = LiteRTModel(path, preserve_all_tensors=True)
        details = self._model.interpreter.get_tensor_details()
        self._floats = [(str(d["name"]), int(d["index"])) for d in details if d["dtype"] == np.float32 and d["name"]]

    def observe(self, inputs: Mapping[str, Array]) -> Iterable[tuple[str, Array]]:
        self._model.invoke(inputs)
        for name, index in self._floats:
            try:
                values = self._model.interpreter.get_tensor(index)
            except ValueError:
                continue  # a scratch tensor of a kernel: has no data outside of it
            yield name, values

"""PyTorch's own dynamic quantization (torch.ao): int8 weights of Linear, LSTM and GRU, activations while running.

It works on the torch.export program, so that any source has it: the program's linear, lstm and gru calls become
torch.nn modules again, and those torch.ao replaces.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.recipes.recipe import Ingredients

Engine = Literal["x86", "qnnpack"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicInt8:
    """For one engine: qnnpack rounds activations to 8 bits, x86 to 7, since its fast product would saturate."""

    engine: Engine
    summary: str
    format: Literal["pt"] = "pt"
    start: Literal["source"] = "source"
    tools: tuple[str, ...] = ("torch",)

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        from pipeline.recipes.torch_modules import quantize_dynamic

        quantize_dynamic(ingredients.source, output, engine=self.engine)

    def why_float(self, op: str) -> str:
        return "PyTorch quantizes Linear, LSTM and GRU with constant weights while running, and nothing else"


X86 = DynamicInt8(
    engine="x86",
    summary="PyTorch: int8 weights of Linear, LSTM and GRU, activations quantized while running; engine x86, for PCs",
)
QNNPACK = DynamicInt8(engine="qnnpack", summary="the same with the engine qnnpack, for ARM")

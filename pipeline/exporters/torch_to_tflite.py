"""PyTorch → TFLite with litert-torch. It keeps the axes as PyTorch has them: images stay channels first (NCHW)."""

from pathlib import Path

import litert_torch

from pipeline.exporters.torch_program import examples, read_program, refuse_free


def convert(source: Path, output: Path) -> None:
    """Convert the program; inputs and outputs keep their names."""
    program = read_program(source)
    refuse_free(program, "litert-torch writes fixed shapes only")
    converted = litert_torch.convert(program.module(check_guards=False), (), examples(program))
    converted.export(str(output))

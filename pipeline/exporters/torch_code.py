"""What makes a module the one it is: its weights and the files of the user's own code. Other content, other model."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch

from pipeline.samples.user_function import is_installed, load_function


def module_digest(module: torch.nn.Module, reference: str, base: Path) -> str:
    """SHA-256 over weights, structure and code; `reference` is the function that made the module."""
    whole = hashlib.sha256(repr(module).encode())
    for name, value in sorted(module.state_dict().items()):
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        whole.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    for file in code_files(module, reference, base):
        whole.update(hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def code_files(module: torch.nn.Module, reference: str, base: Path) -> list[Path]:
    """Files that the function and the classes of the module and its parts come from, and what those import.

    Only the user's own: installed packages are left out.
    """
    names = {load_function(reference, base).__module__, *(type(part).__module__ for part in module.modules())}
    found: dict[str, Path] = {}
    waiting = sorted(names)
    while waiting:
        name = waiting.pop()
        held = sys.modules.get(name)
        file = getattr(held, "__file__", None)
        if held is None or not file or name in found or is_installed(file):
            continue
        found[name] = Path(file)
        waiting += _imported(held)
    return sorted(set(found.values()))


def _imported(module: ModuleType) -> Iterator[str]:
    for value in list(vars(module).values()):
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str):
            yield name

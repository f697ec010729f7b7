"""The three forms a PyTorch model comes in: a function of the user's, a torch.export archive, weights for a factory.

Weights are read with `weights_only=True`: a pickle may run any code when it is read, and a file of weights needs none.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import InputError
from pipeline.exporters.torch_names import Program
from pipeline.samples.user_function import call, is_function_reference, load_function, user_error

# Where training scripts keep the weights when they save more than those.
_NESTED = ("state_dict", "model_state_dict", "model")
_SHOWN = 3  # of the names that do not fit: enough to see the pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A module ready to be run, and what its function gave as an example: nothing, a tensor, a tuple or a dict."""

    module: torch.nn.Module
    examples: Any = None
    program: torch.export.ExportedProgram | None = None  # of a `.pt2`, which knows its inputs by itself


def load(path: Path, *, factory: str, base: Path) -> Loaded:
    """Load the model that `path` names, on the CPU and in evaluation mode.

    Args:
        path: `file.py:function` or `module:function`, a `.pt2`, or a file of weights.
        factory: for weights, the function that makes the module without them.
        base: folder of deploy.yaml.

    Raises:
        InputError: names the file, or the line of the user's code, and what is wrong.
    """
    if factory:
        made = _called(factory, base)
        _take_weights(made.module, path)
        return made
    if is_function_reference(path.name):
        return _called(function_of(path), base)
    return _program(path)


def function_of(path: Path) -> str:
    """The reference in a path that was put together from deploy.yaml's folder and a reference."""
    return str(path) if ".py:" in path.name else path.name


def _called(reference: str, base: Path) -> Loaded:
    made = call(reference, load_function(reference, base))
    module, examples = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, torch.nn.Module):
        raise InputError(
            f"{reference} returned {type(module).__name__}",
            hint="return a torch.nn.Module, or the pair (module, example inputs)",
        )
    try:
        return Loaded(module=module.cpu().eval(), examples=examples)
    except Exception as error:  # `eval` and `train` may be the user's own
        raise user_error(reference, error) from error


def _program(path: Path) -> Loaded:
    try:
        with _no_code_in_pickles():
            program = torch.export.load(path)
        return Loaded(module=Program(program), program=program)
    except Exception as error:  # torch raises anything from KeyError to its own SerializeError here
        raise InputError(
            f"{path}: torch {torch.__version__} cannot load it: {_first_line(error)}",
            hint="save it with torch.export.save of this torch version, or give `file.py:function`, which makes it",
        ) from None


@contextmanager
def _no_code_in_pickles() -> Iterator[None]:
    """torch.export.load falls back to `weights_only=False` for odd constants; with this it cannot."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _take_weights(module: torch.nn.Module, path: Path) -> None:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # UnpicklingError, RuntimeError, EOFError …, by what the file is
        raise InputError(
            f"{path}: no weights can be read from it without running its code: {_first_line(error)}",
            hint="save the weights alone: torch.save(model.state_dict(), path)",
        ) from None
    weights = _weights(path, held)
    torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(weights, "module.")  # nn.DataParallel adds it
    try:
        missing, unexpected = module.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # shapes that differ
        raise InputError(
            f"{path}: {_shapes(error)}", hint="source.factory must make the model that was saved"
        ) from None
    wrong = [f"{what} {_some(names)}" for what, names in (("lacks", missing), ("has besides", unexpected)) if names]
    if wrong:
        raise InputError(
            f"{path}: its weights are not those of the module: it {' and '.join(wrong)}",
            hint="source.factory must make the model that was saved",
        )


def _weights(path: Path, held: Any) -> dict[str, torch.Tensor]:
    if isinstance(held, Mapping):
        inside = next((held[key] for key in _NESTED if isinstance(held.get(key), Mapping)), held)
        if inside and all(isinstance(value, torch.Tensor) for value in inside.values()):
            return dict(inside)
    raise InputError(
        f"{path}: holds {type(held).__name__} and no weights by name",
        hint="save the weights alone: torch.save(model.state_dict(), path)",
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _shapes(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
    return lines[0] if lines else _first_line(error)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]

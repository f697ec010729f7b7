"""Which files are PyTorch's, told without PyTorch and without running what a pickle holds."""

import pickletools
import zipfile
from pathlib import Path

from pipeline.errors import InputError
from pipeline.samples.user_function import is_function_reference

_FACTORY = "source: {model: weights.pth, factory: file.py:function}, the function returns the module without them"
_FUNCTION = "give source.model: file.py:function, which returns the torch.nn.Module"
# All that a file of weights names: containers, and what tensors are rebuilt with.
_HARMLESS = ("torch._utils", "torch.storage", "torch._tensor", "collections", "torch.serialization")


def is_pytorch_function(path: Path) -> bool:
    """Whether it is `file.py:function` or `module:function`, and no file of that odd name.

    Raises:
        InputError: a Python file without the name of a function.
    """
    if path.suffix == ".py":
        raise InputError(f"{path}: is a Python file", hint=f"say which function makes the model: {path.name}:function")
    return is_function_reference(path.name) and not path.exists()


def check_weights(path: Path) -> None:
    """Refuse what holds no weights for `source.factory`; what it holds else, loading it tells.

    Raises:
        InputError: missing, empty, or of another kind.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of weights", hint="check source.model in deploy.yaml")
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: is a git-lfs pointer, not the weights themselves", hint="run `git lfs pull`")
    legacy = len(head) > 1 and head[0] == 0x80 and head[1] in range(2, 6)
    if not legacy and not head.startswith(b"PK"):
        raise InputError(
            f"{path}: is no file of PyTorch weights, and source.factory is for those",
            hint="leave source.factory out, or save the weights with torch.save(model.state_dict(), path)",
        )
    if legacy:
        return
    try:
        with zipfile.ZipFile(path) as archive:
            refuse_checkpoint(path, archive, factory=True)
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{path}: the archive is cut off or damaged ({error})", hint="fetch or save it again"
        ) from None


def refuse_checkpoint(path: Path, archive: zipfile.ZipFile, *, factory: bool = False) -> None:
    """Say what a torch.save archive is that cannot be used as it is.

    Raises:
        InputError: always, except for weights when there is a factory for them.
    """
    names = archive.namelist()
    if any("/code/" in name for name in names):
        raise InputError(
            f"{path}: is a TorchScript archive: its graph has no ways to the converters",
            hint=f"{_FUNCTION}, or torch.export.save(torch.export.export(module, inputs), 'model.pt2')",
        )
    pickled = next((name for name in names if name.endswith("data.pkl")), None)
    try:
        code = _foreign(archive.read(pickled)) if pickled else []
    except ValueError as error:  # pickletools: an opcode that there is not, or the end in the middle of one
        raise InputError(f"{path}: its pickle is damaged ({error})", hint="fetch or save it again") from None
    if code:
        raise InputError(
            f"{path}: is a pickled module ({code[0]}), which runs code of its own when it is read; that is never done",
            hint=f"save the weights alone, torch.save(model.state_dict(), path), then {_FACTORY}; or {_FUNCTION}",
        )
    if not factory:
        raise InputError(f"{path}: holds PyTorch weights without the model", hint=f"write {_FACTORY}")


def _foreign(pickled: bytes) -> list[str]:
    """Names in the pickle that no weights need: classes of the user's or of torch.nn."""
    found, strings = [], [""]
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL":
            found.append(str(argument).replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL":
            found.append(".".join(strings[-2:]))
        elif isinstance(argument, str):
            strings.append(argument)
    return [name for name in found if not name.startswith(_HARMLESS) and not name.endswith("Storage")]

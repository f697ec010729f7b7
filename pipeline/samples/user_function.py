"""The user's own functions, `module:name` or `path/file.py:name`, loaded and called so that errors name their line."""

import hashlib
import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.errors import InputError, UsageError


def is_function_reference(text: str) -> bool:
    """Say whether the text has the form `module:name` or `file.py:name`."""
    place, colon, name = text.rpartition(":")
    return bool(colon and place and name.isidentifier())


def load_function(reference: str, base: Path) -> Callable[..., Any]:
    """Return the function; UsageError when there is none, InputError naming file:line when its module raises.

    While the module is imported, its folder (for a module: deploy.yaml's folder) is on the import path, so that it
    can import its neighbours.
    """
    place, _, name = reference.rpartition(":")
    if not is_function_reference(reference):
        raise UsageError(f"{reference!r} is no function", hint="write `module:function` or `path/file.py:function`")
    module = (
        _load_file(base / Path(place).expanduser(), reference) if place.endswith(".py") else _load_module(place, base)
    )
    function: Callable[..., Any] | None = getattr(module, name, None)
    if function is None or not callable(function):
        offered = ", ".join(own for own, value in vars(module).items() if callable(value) and not own.startswith("_"))
        raise UsageError(f"{place} has no function {name!r}", hint=f"it has {offered}" if offered else "define it")
    return function


def call(what: str, function: Callable[..., Any], *arguments: object) -> Any:
    """Call the user's function; whatever it raises becomes an InputError naming its file and line."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        raise user_error(what, error) from error


def user_error(what: str, error: BaseException) -> InputError:
    """Say where in the user's code an exception came from: the innermost frame outside installed packages."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [frame for frame in frames if not is_installed(frame.filename)]
    # An import error raised by the import machinery itself has no frame of the user's.
    where = f"{outside[-1].filename}:{outside[-1].lineno}: " if outside else ""
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{error.filename}:{error.lineno}: "
    return InputError(f"{where}{what} raised {type(error).__name__}: {error}", hint="mend the function, or its input")


def is_installed(filename: str) -> bool:
    """Whether a source file is Python's, ours, or of an installed package, and so not the user's own."""
    # Our own frames stand between the user's and ours; frozen importlib frames have names such as <frozen …>.
    own, standard = str(Path(__file__).resolve().parents[1]), sysconfig.get_path("stdlib")
    return filename.startswith(("<", own, standard)) or "site-packages" in filename


def _load_file(path: Path, reference: str) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file (for {reference})", hint="the path is relative to deploy.yaml")
    path = path.resolve()
    # The name carries the path's digest: two files called metric.py must not be one module.
    name = f"_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: not a Python file", hint="write `path/file.py:function`")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up by name.
    sys.modules[name] = module
    try:
        with _import_path(path.parent):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise user_error(f"importing {path.name}", error) from error
    return module


def _load_module(name: str, base: Path) -> ModuleType:
    try:
        with _import_path(base.resolve()):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            raise UsageError(f"there is no module {name!r}", hint="install it, or write `path/file.py:name`") from error
        raise user_error(f"importing {name}", error) from error
    except (Exception, SystemExit) as error:
        raise user_error(f"importing {name}", error) from error


@contextmanager
def _import_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))

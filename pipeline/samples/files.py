"""Files as users have them: missing, empty, or only a git-lfs pointer."""

from pathlib import Path

from pipeline.errors import InputError

_LFS = b"version https://git-lfs.github.com/spec/"


def resolve(path: str, base: Path) -> Path:
    """Return the path as seen from deploy.yaml's folder, `~` expanded."""
    return base / Path(path).expanduser()


def check_file(path: Path, what: str) -> Path:
    """Return the path of a readable, non-empty, real file; InputError otherwise."""
    if not path.exists():
        raise InputError(f"{path}: there is no such {what}", hint="paths are relative to deploy.yaml's folder")
    if not path.is_file():
        raise InputError(f"{path}: this is not a file", hint=f"name the {what} itself")
    try:
        with path.open("rb") as file:
            head = file.read(len(_LFS))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}", hint="check its permissions") from error
    if not head:
        raise InputError(f"{path}: the file is empty", hint="fetch it again, or remove it")
    if head == _LFS:
        raise InputError(f"{path}: this is a git-lfs pointer, not the data", hint="run `git lfs pull` in its checkout")
    return path

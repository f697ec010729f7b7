"""Devices that ~/.ssh/config names: every Host without a wildcard."""

from pathlib import Path

from pipeline.errors import InputError
from pipeline.inventory.found import Found


def ssh_config_hosts(path: Path) -> list[Found]:
    """One device for each plain alias; how it is reached stays in the file and is read when connecting.

    Raises InputError when the file cannot be read. `Include` is followed by nobody here: paramiko does not either.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as fault:
        raise InputError(f"{path}: cannot be read: {fault.strerror}", hint="correct `ssh_config:`") from None
    found: dict[str, Found] = {}
    for number, line in enumerate(text.splitlines(), 1):
        keyword, *values = line.replace("=", " ", 1).split()[:64] or [""]
        if keyword.lower() != "host":
            continue
        for alias in values:
            if not set("*?!") & set(alias):
                settings = {"host": alias, "ssh_config": str(path)}
                found.setdefault(alias, Found(name=alias, line=number, settings=settings))
    return list(found.values())

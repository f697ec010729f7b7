"""Android's system properties: a file of NAME=VALUE lines, and the shell commands that read and change it."""

import shlex
from collections.abc import Mapping
from pathlib import Path

# What `adb devices -l` shows of a device.
BANNER_PROPERTIES = ("ro.product.name", "ro.product.model", "ro.product.device")

_GETPROP = """#!/bin/sh
# getprop [NAME [DEFAULT]]
[ $# -gt 0 ] || exec sed -n 's/^\\([^=#]*\\)=\\(.*\\)$/[\\1]: [\\2]/p' {file}
while IFS= read -r line; do
  case $line in "$1="*) printf '%s\\n' "${{line#*=}}"; exit 0 ;; esac
done <{file}
printf '%s\\n' "$2"
"""
_SETPROP = """#!/bin/sh
# setprop NAME VALUE
[ $# = 2 ] || {{ echo 'usage: setprop NAME VALUE' >&2; exit 1; }}
set -e
while IFS= read -r line; do
  case $line in "$1="*) ;; *) printf '%s\\n' "$line" ;; esac
done <{file} >{file}.new
printf '%s\\n' "$1=$2" >>{file}.new
mv {file}.new {file}
"""


def read_properties(path: Path | None) -> Mapping[str, str]:
    """The properties now; of a line that is not NAME=VALUE nothing. Raises OSError."""
    if path is None:
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return {line.partition("=")[0]: line.partition("=")[2] for line in lines if "=" in line and line[0] != "#"}


def install_commands(folder: Path, properties: Path) -> None:
    """Put `getprop` and `setprop` into a folder of programs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"getprop": _GETPROP, "setprop": _SETPROP}.items():
        program = folder / name
        program.write_text(text.format(file=shlex.quote(str(properties))), encoding="utf-8")
        program.chmod(0o755)

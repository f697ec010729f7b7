"""Android's system properties: a file of NAME=VALUE lines, and the shell commands that read and change it.

With them comes what else a phone's own programs do otherwise than this machine's.
"""

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

# What `adb devices -l` shows of a device.
BANNER_PROPERTIES = ("ro.product.name", "ro.product.model", "ro.product.device")

_GETPROP = """#!/bin/sh
# getprop [NAME [DEFAULT]]
[ $# -gt 0 ] || exec sed -n 's/^\\([^=#]*\\)=\\(.*\\)$/[\\1]: [\\2]/p' {file}
while IFS= read -r line; do
  case $line in "$1="*) printf '%s\\n' "${line#*=}"; exit 0 ;; esac
done <{file}
printf '%s\\n' "$2"
"""
_SETPROP = """#!/bin/sh
# setprop NAME VALUE
[ $# = 2 ] || { echo 'usage: setprop NAME VALUE' >&2; exit 1; }
set -e
while IFS= read -r line; do
  case $line in "$1="*) ;; *) printf '%s\\n' "$line" ;; esac
done <{file} >{file}.new
printf '%s\\n' "$1=$2" >>{file}.new
mv {file}.new {file}
"""
# Android's toybox hashes by BoringSSL with the processor's own instructions: four times as fast as coreutils 9.1, which
# has none of them.
_SHA256SUM = """#!/bin/sh
# sha256sum [FILE...]
said=$(openssl dgst -sha256 -r "$@")
code=$?
while read -r hash name; do
  [ -z "$hash" ] || printf '%s  %s\\n' "$hash" "$([ $# -gt 0 ] && printf '%s' "${name#\\*}" || printf -)"
done <<END
$said
END
exit $code
"""
# As Android's own, in its words: packages/modules/adb and system/core/run-as/run-as.cpp. What follows runs as the app's
# user, in the app's folder.
_RUN_AS = """#!/bin/sh
# run-as PACKAGE [--user ID] [COMMAND [ARGUMENT...]]
fail() { echo "run-as: $1" >&2; exit 1; }
[ $# -gt 0 ] || { echo 'usage: run-as <package-name> [--user <uid>] <command> [<args>]' >&2; exit 1; }
package=$1; shift
[ "$1" != --user ] || shift 2
while read -r name uid kind <&3; do
  [ "$name" = "$package" ] || continue
  [ "$kind" = debuggable ] || fail "package not debuggable: $package"
  cd "/data/data/$package" || fail "couldn't chdir to package's data directory"
  [ $# -gt 0 ] || set -- sh
  exec setpriv --reuid "$uid" --regid "$uid" --clear-groups "$@" 3<&-
done 3<{packages}
fail "unknown package: $package"
"""
# Of the service manager's command only what is asked of it; in the words of PowerManagerShellCommand.java. What is set
# can be read as a property here; set it to `unsupported` for a phone whose maker's HAL does not have the mode.
_CMD = """#!/bin/sh
# cmd SERVICE [ARGUMENT...]
[ "$1" = power ] || { echo "cmd: Can't find service: $1" >&2; exit 20; }
[ "$2" = set-fixed-performance-mode-enabled ] || { echo "Unknown command: $2"; exit 255; }
if [ "$(getprop lab.fixed_performance)" = unsupported ]; then
  echo 'Failed to set FIXED_PERFORMANCE mode' >&2
  echo 'This is likely because Power HAL AIDL is not implemented on this device' >&2
  exit 255
fi
setprop lab.fixed_performance "$3"
"""


def read_properties(path: Path | None) -> Mapping[str, str]:
    """The properties now; of a line that is not NAME=VALUE nothing. Raises OSError."""
    if path is None:
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return {line.partition("=")[0]: line.partition("=")[2] for line in lines if "=" in line and line[0] != "#"}


def install_commands(folder: Path, properties: Path) -> None:
    """Put `getprop`, `setprop`, `run-as` and `cmd` into a folder of programs.

    Beside the properties, a file `packages` may list the apps: NAME UID, and `debuggable` or `release`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    programs = {"getprop": _GETPROP, "setprop": _SETPROP, "run-as": _RUN_AS, "cmd": _CMD}
    if shutil.which("openssl"):
        programs["sha256sum"] = _SHA256SUM
    for name, text in programs.items():
        program = folder / name
        text = text.replace("{file}", shlex.quote(str(properties)))
        text = text.replace("{packages}", shlex.quote(str(properties.with_name("packages"))))
        program.write_text(text, encoding="utf-8")
        program.chmod(0o755)

"""What a lab needs of this machine, and what of it is missing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from targets.errors import EnvironmentFault
from targets.lab.kinds import load_kind

# What devices of every kind need: program or file → the Debian package that has it.
_PROGRAMS: Mapping[str, str] = {"ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is missing, and the remedy."""

    kind: str
    missing: str
    package: str = ""  # Debian package that brings it; empty: no package does


def findings(kind: str) -> list[Finding]:
    """What this machine lacks for devices of a kind; empty when it has all."""
    if sys.platform != "linux":
        return [Finding(kind=kind, missing="Linux: devices are made of its namespaces")]
    found = []
    if os.geteuid() != 0:
        found.append(Finding(kind=kind, missing="root: only it may make namespaces and mounts"))
    elif not _may_make_namespaces():
        found.append(Finding(kind=kind, missing="the right to make namespaces (a container needs --privileged)"))
    for program, package in {**_PROGRAMS, **load_kind(kind).programs}.items():
        if not _is_here(program):
            found.append(Finding(kind=kind, missing=program, package=package))
    return found


def _is_here(program: str) -> bool:
    """A program by its name, or a file by its path, which may be a pattern."""
    if program.startswith("/"):
        return any(Path("/").glob(program[1:]))
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None


def _may_make_namespaces() -> bool:
    """Root of an ordinary container may not, and only trying tells."""
    try:
        trial = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "true"]
        return subprocess.run(trial, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return True  # what is missing is a program, of a package that is named anyhow


def apt_line(found: list[Finding]) -> str:
    """The one command that installs all that packages can bring; empty when none can."""
    packages = list(dict.fromkeys(finding.package for finding in found if finding.package))
    return f"sudo apt-get install --no-install-recommends {' '.join(packages)}" if packages else ""


def require(*kinds: str) -> None:
    """Raises EnvironmentFault naming everything that is missing and how to get it."""
    found = [finding for kind in kinds for finding in findings(kind)]
    if not found:
        return
    missing = "; ".join(dict.fromkeys(finding.missing for finding in found))
    hints = [apt_line(found)] if apt_line(found) else []
    if any(finding.missing.startswith("root") for finding in found):
        hints.append("run it with sudo")
    elif sys.platform != "linux":
        hints.append("use a Linux machine or virtual machine")
    raise EnvironmentFault(f"this machine cannot run a device lab: missing {missing}", hint="; ".join(hints))

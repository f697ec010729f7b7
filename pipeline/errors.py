"""The family root is `targets.errors.DeployError`; the host's own errors are gathered here under one import."""

import difflib
from collections.abc import Iterable

from targets.errors import (
    ConversionFailed,
    DeployError,
    EnvironmentFault,
    HostDiskFull,
    InputError,
    MissingExtra,
    UsageError,
)

__all__ = [
    "ConversionFailed",
    "DeployError",
    "EnvironmentFault",
    "HostDiskFull",
    "InputError",
    "MissingExtra",
    "UsageError",
    "nearest",
]


def nearest(word: str, known: Iterable[str]) -> str:
    """A "did you mean" for an error message, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""

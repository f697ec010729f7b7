"""The family root is `targets.errors.DeployError`; the host's own errors are gathered here under one import."""

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
]

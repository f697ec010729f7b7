"""The one tree of expected errors. Only the CLI turns them into text and an exit code.

    DeployError                     1  (never raised itself)
    ├── UsageError                  2  the command line or deploy.yaml is wrong
    │   └── InputError              2  a model, sample or file given by the user cannot be used
    ├── DeviceError                 3  something about a device
    │   ├── Unreachable             3  no connection (transient)
    │   ├── DeviceTimeout           3  a step outlived its deadline (transient)
    │   ├── ConnectionLost          3  the link died in the middle of a step (transient)
    │   ├── HostKeyRejected         3  unknown or changed host key
    │   ├── AuthRefused             3  no key was accepted
    │   ├── NoPython                3  the device has no usable python3
    │   ├── NoRuntime               3  no runtime there for this model format
    │   ├── DiskFull                3  no space left on the device
    │   ├── ReadOnly                3  the device's file system does not take writes
    │   ├── HashMismatch            3  what arrived is not what was sent (transient)
    │   ├── ReleaseRefused          3  the device cannot make sense of a release
    │   │   ├── SignatureRefused    3  a release or key that no key trusted there has signed
    │   │   ├── Downgrade           3  older than what the device has proved already
    │   │   └── NotStaged           3  the release is not there, or not in the state that the step needs
    │   ├── Leased                  3  another controller has the device to itself (transient)
    │   ├── HookRefused             3  the owner's program is not there, or others could have written it
    │   ├── NotSupported            3  this kind of device cannot do that
    │   └── AgentFailed             3  the agent died, or said something out of protocol
    ├── EnvironmentFault            3  something about this host
    │   ├── MissingExtra            3  an optional dependency is not installed
    │   └── HostDiskFull            3  this host cannot write its records
    ├── BundleRefused               1  a release bundle is damaged, made by hand, or of a newer `deploy`
    │   └── BundleSignature         1  a release bundle is not signed by a key that is trusted here
    └── ConversionFailed            1  a converter refused, raised, or died

`transient` says whether the same step may be tried again unchanged; nothing ever matches error text to decide it.
"""

from typing import ClassVar


class DeployError(Exception):
    """An expected failure: what happened, and in `hint` what to do about it."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    transient: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross the boundary of a worker process; the keyword-only `hint` needs its own way over.
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[DeployError], message: str, hint: str) -> DeployError:
    return kind(message, hint=hint)


class UsageError(DeployError):
    code, exit_code = "usage", 2


class InputError(UsageError):
    code = "input"


class DeviceError(DeployError):
    code, exit_code = "device", 3


class Unreachable(DeviceError):
    code, transient = "unreachable", True


class DeviceTimeout(DeviceError):
    code, transient = "timeout", True


class ConnectionLost(DeviceError):
    code, transient = "connection-lost", True


class HostKeyRejected(DeviceError):
    code = "host-key"


class AuthRefused(DeviceError):
    code = "auth"


class NoPython(DeviceError):
    code = "no-python"


class NoRuntime(DeviceError):
    code = "no-runtime"


class DiskFull(DeviceError):
    code = "disk-full"


class ReadOnly(DeviceError):
    code = "read-only"


class HashMismatch(DeviceError):
    code, transient = "hash-mismatch", True


class ReleaseRefused(DeviceError):
    code = "release-refused"


class SignatureRefused(ReleaseRefused):
    code = "signature"


class Downgrade(ReleaseRefused):
    code = "downgrade"


class NotStaged(ReleaseRefused):
    code = "not-staged"


class Leased(DeviceError):
    """Another controller has the device to itself; the message names it and says for how long yet."""

    code, transient = "leased", True


class HookRefused(DeviceError):
    code = "hook-refused"


class NotSupported(DeviceError):
    code = "not-supported"


class AgentFailed(DeviceError):
    code = "agent"


class EnvironmentFault(DeployError):
    code, exit_code = "environment", 3


class MissingExtra(EnvironmentFault):
    code = "missing-extra"


class HostDiskFull(EnvironmentFault):
    code = "host-disk-full"


class BundleRefused(DeployError):
    code = "bundle"


class BundleSignature(BundleRefused):
    code = "bundle-signature"


class ConversionFailed(DeployError):
    code = "conversion"

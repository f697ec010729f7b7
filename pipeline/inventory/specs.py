"""A target of deploy.yaml as the `targets` package wants it."""

from pathlib import Path
from typing import Any

from pipeline.config import AdbTarget, LocalTarget, TargetConfig
from targets.records import TargetSpec


def target_spec(name: str, target: TargetConfig, base: Path) -> TargetSpec:
    if isinstance(target, LocalTarget):
        return TargetSpec(name=name, transport="local", python=target.python, threads=target.threads, **_words(target))

    def here(path: str) -> str:
        return str((base / Path(path).expanduser()).resolve()) if path else ""

    if isinstance(target, AdbTarget):
        return TargetSpec(
            name=name,
            transport="adb",
            serial=target.serial,
            host=target.host,
            port=target.port,
            runner=target.runner,
            libraries=here(target.libraries),
            python=target.python,
            root=target.root,
            connect_timeout_s=target.connect_timeout,
            step_timeout_s=target.step_timeout,
            threads=target.threads,
            **_words(target),
        )
    return TargetSpec(
        name=name,
        transport="ssh",
        host=target.host,
        user=target.user,
        port=target.port,
        identity_file=here(target.identity_file),
        known_hosts=here(target.known_hosts),
        ssh_config=here(target.ssh_config),
        python=target.python,
        root=target.root,
        connect_timeout_s=target.connect_timeout,
        step_timeout_s=target.step_timeout,
        threads=target.threads,
        **_words(target),
    )


def _words(target: TargetConfig) -> dict[str, Any]:
    """What any target says of itself for selecting, and of releases."""
    return {
        "groups": tuple(target.groups),
        "labels": dict(target.labels),
        "device_class": target.device_class,
        "activate_hook": tuple(target.activate_hook),
        "health": tuple(target.health),
    }

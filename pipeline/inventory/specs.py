"""A target of deploy.yaml as the `targets` package wants it."""

from pathlib import Path
from typing import Any

from pipeline.config import AdbTarget, LocalTarget, TargetConfig
from targets.meters import LOGS
from targets.records import TargetSpec


def target_spec(name: str, target: TargetConfig, base: Path) -> TargetSpec:
    if isinstance(target, LocalTarget):
        return TargetSpec(
            name=name, transport="local", python=target.python, threads=target.threads, **_words(target, base)
        )

    def here(path: str) -> str:
        return _at(base, path) if path else ""

    if isinstance(target, AdbTarget):
        return TargetSpec(
            name=name,
            transport="adb",
            serial=target.serial,
            host=target.host,
            port=target.port,
            runner=target.runner,
            libraries=here(target.libraries),
            app=target.app,
            fixed_performance=target.fixed_performance,
            python=target.python,
            root=target.root,
            connect_timeout_s=target.connect_timeout,
            step_timeout_s=target.step_timeout,
            threads=target.threads,
            **_words(target, base),
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
        **_words(target, base),
    )


def _words(target: TargetConfig, base: Path) -> dict[str, Any]:
    """What any target says: of itself for selection, of its power meter, of its owner's programs."""
    log, _, path = target.meter.partition(":")
    meter = f"{log}:{_at(base, path)}" if log in LOGS and path else target.meter
    words = {"device_class": target.device_class, "groups": tuple(target.groups), "labels": dict(target.labels)}
    programs = {"activate_hook": tuple(target.activate_hook), "health": tuple(target.health)}
    return {**words, **programs, "meter": meter}


def _at(base: Path, path: str) -> str:
    return str((base / Path(path).expanduser()).resolve())

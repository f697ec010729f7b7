"""What the SSH tests share: a target for a server, and what a failing connection must look like."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sshd import Sshd

from targets.device import connect
from targets.errors import DeployError
from targets.records import TargetSpec


def spec_for(server: Sshd, root: Path) -> TargetSpec:
    return TargetSpec(
        name="pi",
        transport="ssh",
        host="127.0.0.1",
        port=server.port,
        identity_file=str(server.identity),
        known_hosts=str(server.known_hosts),
        python=sys.executable,
        root=str(root),
        connect_timeout_s=3.0,
        step_timeout_s=30.0,
    )


def refusal(spec: TargetSpec, kind: type[DeployError], tmp_path: Path) -> DeployError:
    with pytest.raises(kind) as caught:
        connect(spec, state=tmp_path).close()
    assert type(caught.value) is kind
    assert caught.value.hint
    return caught.value


def once_past(share: float, action: Callable[[], object]) -> Callable[[int, int], None]:
    left = [action]

    def progress(sent: int, total: int) -> None:
        if sent > share * total and left:
            left.pop()()

    return progress

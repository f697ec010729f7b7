"""Fixtures for everything that needs a real SSH server. Being here also puts this folder's modules on the path."""

from collections.abc import Iterator

import pytest
from sshd import Sshd, require_sshd


@pytest.fixture(scope="session")
def shared_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One server for tests that do it no harm."""
    require_sshd()
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server of the test's own, to stop, kill or rename as it likes."""
    require_sshd()
    with Sshd(tmp_path_factory.mktemp("own-sshd")) as server:
        yield server

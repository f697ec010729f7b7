"""One worker for the contract tests of sources and recipes: importing TensorFlow costs seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.worker import Worker


@pytest.fixture(scope="session")
def worker() -> Iterator[Worker]:
    with pytest.MonkeyPatch.context() as patch, Worker() as running:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # so that it finds `source_models`
        yield running

"""System tests: all four programs as real processes, started by production code."""

from collections.abc import Generator
from pathlib import Path

import pytest
from tests.support.cluster import Cluster
from tests.support.models import endless_model
from tests.support.skips import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]


@pytest.fixture
def cluster(tmp_path: Path) -> Generator[Cluster]:
    """A home of its own; after the test nothing of it may be left."""
    cluster = Cluster(tmp_path / "home")
    try:
        yield cluster
        cluster.leaves_nothing()
    finally:
        cluster.close()


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A reference to a model whose answers do not end by themselves, in a context as large as a test wants."""
    return f"file:{endless_model(tmp_path_factory.mktemp('models') / 'endless.gguf', n_ctx_train=40_000)}"

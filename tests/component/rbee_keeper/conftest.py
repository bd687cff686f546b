"""The real keeper against a scripted queen."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.support.keeper_lab import KeeperLab
from tests.support.keeper_terminal import Terminal


@pytest.fixture
def lab(tmp_path: Path) -> Generator[KeeperLab]:
    made = KeeperLab(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[KeeperLab]:
    """A lab whose queen stands already and knows some nodes; shared by tests that leave her as she is."""
    made = KeeperLab(tmp_path_factory.mktemp("cluster"))
    made.start_queen("--cluster")
    yield made
    made.close()


@pytest.fixture
def terminals() -> Generator[list[Terminal]]:
    made: list[Terminal] = []
    yield made
    for terminal in made:
        os.close(terminal.master)

"""The real keeper against a scripted queen."""

from collections.abc import Generator
from pathlib import Path

import pytest
from tests.support.keeper_lab import KeeperLab


@pytest.fixture
def lab(tmp_path: Path) -> Generator[KeeperLab]:
    made = KeeperLab(tmp_path)
    yield made
    made.close()

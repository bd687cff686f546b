"""A real queen as an operator starts her, and a node that follows a script."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
from tests.support.cluster import Cluster
from tests.support.queen import LiveQueen, live_queen
from tests.support.scripted_node import Script, ScriptedNode, scripted_node


@pytest.fixture
def clocks() -> dict[str, str]:
    """Clocks of the queen that a test wants otherwise."""
    return {}


@pytest.fixture
def cluster(tmp_path: Path, clocks: dict[str, str]) -> Generator[Cluster]:
    """A home of its own; after the test nothing of it may be left."""
    cluster = Cluster(tmp_path / "home", **clocks)
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
async def queen(cluster: Cluster) -> AsyncGenerator[LiveQueen]:
    async with live_queen(cluster) as queen:
        yield queen


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def node(queen: LiveQueen, script: Script) -> AsyncGenerator[ScriptedNode]:
    async with scripted_node(queen.url, queen.token, script) as node:
        yield node

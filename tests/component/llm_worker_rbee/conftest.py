"""Live workers, started as a hive starts them."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.support.scripted_gguf import TEMPLATE, Script, write_scripted
from tests.support.worker import RunningWorker, worker_process


@pytest.fixture(scope="module")
async def worker(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunningWorker]:
    """A ready worker with the embedded model; one for a module: each test leaves it idle."""
    async with worker_process(tmp_path_factory.mktemp("home")) as running_worker:
        await running_worker.until_ready()
        yield running_worker


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that never ends by itself, with room for many seconds of answer."""
    path = tmp_path_factory.mktemp("models") / "endless.gguf"
    return write_scripted(path, Script(b"abcdefgh ", forever=True, template=TEMPLATE, n_ctx=32_768))


@pytest.fixture
async def endless_worker(tmp_path: Path, endless: Path) -> AsyncGenerator[RunningWorker]:
    """A ready worker of one slot, whose answers are long enough to be interrupted."""
    async with worker_process(tmp_path, "--n-ctx", "32768", "--slots", "1", model=endless) as running_worker:
        await running_worker.until_ready()
        yield running_worker

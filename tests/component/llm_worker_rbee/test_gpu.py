"""A worker on a graphics device: it is really used, and never quietly replaced by the processor.

Runs where there is a device and a build of llama.cpp for it; elsewhere each test is skipped with what is missing.
"""

import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.support.worker import RunningWorker, worker_failure, worker_process

from llm_worker_rbee.engine.devices import Devices
from llm_worker_rbee.engine.library import load_bindings, load_ggml
from rbee_shared.errors import BackendUnavailableError

pytestmark = pytest.mark.allow_blocking("the test starts the process; the code under test runs in it")

_FIRST_TOKENS = 8


@pytest.fixture(scope="module")
def backend() -> str:
    """The backend of this machine's device."""
    name = _backend_of_the_machine()
    if name is None:
        pytest.skip("no graphics device: `nvidia-smi -L` lists none, and this is no Mac with Metal")
    try:
        Devices(load_bindings(), load_ggml()).choose(name, "0")
    except BackendUnavailableError as error:
        pytest.skip(f"this machine has a device for {name}, but {error.message}")
    return name


def _backend_of_the_machine() -> str | None:
    if sys.platform == "darwin":
        return "metal"
    if (program := shutil.which("nvidia-smi")) is None:
        return None
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=False)
    return "cuda" if listed.returncode == 0 and "GPU 0" in listed.stdout else None


@pytest.fixture
async def on_device(tmp_path: Path, backend: str) -> AsyncGenerator[RunningWorker]:
    """A ready worker on the first device."""
    async with worker_process(tmp_path, "--backend", backend) as running_worker:
        await running_worker.until_ready(60)
        yield running_worker


async def test_it_says_what_the_processor_says(on_device: RunningWorker, worker: RunningWorker) -> None:
    question = {"prompt": "Once upon a time", "max_tokens": _FIRST_TOKENS, "temperature": 0}
    device, processor = await on_device.execute(**question), await worker.execute(**question)

    assert device.ids == processor.ids
    assert len(device.ids) == _FIRST_TOKENS


async def test_its_memory_is_the_device_s(on_device: RunningWorker) -> None:
    health = await on_device.health()
    memory = health["memory"]

    assert min(memory.values()) > 0
    assert memory["kv_bytes"] < health["vram_bytes"] <= sum(memory.values()), "the input embeddings stay behind"


async def test_it_names_the_device_it_uses(on_device: RunningWorker, backend: str) -> None:
    (line,) = [line for line in on_device.narrated if line.action == "initialized"]

    assert f"{backend.upper()} device 0" in line.human


@pytest.mark.parametrize("device", ["99", "cpu", "-1"])
async def test_a_device_that_is_not_there_is_refused(tmp_path: Path, backend: str, device: str) -> None:
    status, error = await worker_failure(tmp_path, "--backend", backend, "--device", device)

    assert status == 1
    assert error is not None
    assert error.code == "BACKEND_UNAVAILABLE"


async def test_the_processor_stays_a_choice(tmp_path: Path, backend: str) -> None:
    async with worker_process(tmp_path, "--backend", "cpu") as running_worker:
        await running_worker.until_ready(60)
        health = await running_worker.health()

    assert backend != "cpu"
    assert health["vram_bytes"] == 0
    assert min(health["memory"].values()) > 0

"""The hive's pure decisions: states, memory, room, devices, ports, files."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_hive.domain.devices.device_choice import CPU, DeviceName, choose_device
from rbee_hive.domain.fit.capacity import required_by_size
from rbee_hive.domain.models.file_rules import require_allowed, require_gguf, unique_id
from rbee_hive.domain.workers.idle import idle_too_long
from rbee_hive.domain.workers.memory import Holder, MemoryFacts, missing_bytes, released
from rbee_hive.domain.workers.port_choice import hive_ports, worker_port
from rbee_hive.domain.workers.worker_state import LIVE, InvalidTransitionError, WorkerSignal, activity, advance
from rbee_shared.contracts.workers import WorkerRecord, WorkerState
from rbee_shared.errors import (
    BackendUnavailableError,
    ForbiddenError,
    ModelInvalidError,
)

MIB = 1024 * 1024
S, G = WorkerState, WorkerSignal
_LAWFUL = {
    (S.STARTING, G.HTTP_UP): S.LOADING,
    (S.LOADING, G.READY): S.IDLE,
    (S.IDLE, G.JOB_STARTED): S.BUSY,
    (S.BUSY, G.JOB_DONE): S.IDLE,
    (S.DRAINING, G.EXITED): S.STOPPED,
    **{(state, G.STOP): S.DRAINING for state in LIVE},
    **{(state, G.DIED): S.FAILED for state in LIVE},
}


@pytest.mark.parametrize("signal", WorkerSignal)
@pytest.mark.parametrize("state", WorkerState)
def test_every_state_and_signal_is_decided(state: WorkerState, signal: WorkerSignal) -> None:
    if (expected := _LAWFUL.get((state, signal))) is not None:
        assert advance(state, signal) is expected
    else:
        with pytest.raises(InvalidTransitionError):
            advance(state, signal)


@pytest.mark.parametrize(
    ("state", "busy", "expected"),
    [(S.IDLE, 1, G.JOB_STARTED), (S.IDLE, 0, None), (S.BUSY, 0, G.JOB_DONE), (S.BUSY, 2, None), (S.LOADING, 1, None)],
)
def test_what_busy_slots_mean(state: WorkerState, busy: int, expected: WorkerSignal | None) -> None:
    assert activity(state, busy) is expected


@pytest.mark.parametrize(
    ("facts", "missing"),
    [
        pytest.param(MemoryFacts(600 * MIB, 1000 * MIB, 1600 * MIB), 0, id="all came back"),
        pytest.param(MemoryFacts(600 * MIB, 1000 * MIB, 1540 * MIB), 0, id="within tolerance"),
        pytest.param(MemoryFacts(600 * MIB, 1000 * MIB, 1000 * MIB), 600 * MIB, id="nothing came back"),
        pytest.param(MemoryFacts(600 * MIB, 1000 * MIB, 1000 * MIB, 590 * MIB), 0, id="another program took it"),
        pytest.param(MemoryFacts(50 * MIB, 1000 * MIB, 1010 * MIB), 0, id="too small to tell from noise"),
        pytest.param(MemoryFacts(8000 * MIB, 0, 7300 * MIB), 0, id="a tenth of a big one is tolerated"),
        pytest.param(
            MemoryFacts(50 * MIB, 0, 50 * MIB, 0, (Holder(7, "x", 30 * MIB),)), 30 * MIB, id="a holder counts always"
        ),
    ],
)
def test_memory(facts: MemoryFacts, missing: int) -> None:
    assert missing_bytes(facts) == missing
    assert released(facts) is (missing == 0)


def test_a_survivor_that_holds_nothing_is_still_a_survivor() -> None:
    assert not released(MemoryFacts(0, 0, 0, 0, (Holder(7, "x", 0),)))


@given(st.integers(min_value=0, max_value=2**50))
def test_required_bytes_are_a_fifth_more_and_never_less(size: int) -> None:
    assert size * 1.2 - 1 <= required_by_size(size) <= size * 1.2 + 1 or size > 2**45
    assert required_by_size(size) * 5 >= size * 6


_GPU1 = DeviceName("gpu1", "cuda", 1)


@pytest.mark.parametrize(
    ("backend", "device", "expected"),
    [
        (None, None, CPU),
        ("cpu", None, CPU),
        ("cpu", 0, CPU),
        (None, "cpu", CPU),
        (None, "CPU", CPU),
        ("cpu", "cpu:0", CPU),
        ("cuda", 1, _GPU1),
        (None, "gpu1", _GPU1),
        (None, "cuda:1", _GPU1),
        ("cuda", None, _GPU1),
    ],
)
def test_a_device_is_found(backend: str | None, device: int | str | None, expected: DeviceName) -> None:
    assert choose_device(backend, device, (CPU, _GPU1)) == expected


@pytest.mark.parametrize(("backend", "device"), [("metal", 0), ("cpu", 7), (None, "gpu7"), (None, 0), ("cpu", "gpu1")])
def test_an_unknown_device_is_refused_naming_those_there_are(backend: str | None, device: int | str) -> None:
    with pytest.raises(BackendUnavailableError, match="cpu, gpu1"):
        choose_device(backend, device, (CPU, _GPU1))


def test_ports() -> None:
    assert hive_ports(9200, has_parent=True) == (9200, 0)
    assert hive_ports(9200, has_parent=False) == (9200,)
    assert hive_ports(0, has_parent=True) == (0,)
    assert worker_port(8601, 8001) == 8601
    assert worker_port(None, 8001) == 8001


def test_files() -> None:
    require_allowed(Path("/home/models/a.gguf"), [Path("/other"), Path("/home/models")])
    with pytest.raises(ForbiddenError, match="outside"):
        require_allowed(Path("/home/models-secret/a.gguf"), [Path("/home/models")])
    require_gguf("a", 10, b"GGUF")
    for size, head in ((0, b""), (4, b"GGML"), (2, b"GG")):
        with pytest.raises(ModelInvalidError):
            require_gguf("a", size, head)
    assert unique_id(Path("/x/Tiny Llama (1).gguf"), ()) == "Tiny-Llama-1"
    assert unique_id(Path("/x/a.gguf"), ("a", "a-2")) == "a-3"
    assert unique_id(Path("/x/..gguf"), ()) != ""


def _worker(worker_id: str, state: WorkerState, last_activity: float) -> WorkerRecord:
    return WorkerRecord(
        id=worker_id, url=None, model_ref="m", backend="cpu", device="cpu", state=state, pid=1,
        started_at=0, last_activity=last_activity,
    )  # fmt: skip


def test_only_idle_workers_beyond_the_limit_are_stopped() -> None:
    workers = [_worker("old", S.IDLE, 10), _worker("busy", S.BUSY, 10), _worker("new", S.IDLE, 390)]
    workers += [_worker("pinned", S.IDLE, 10).model_copy(update={"pinned": True})]

    assert idle_too_long(workers, now_unix=400, limit_s=300) == ("old",)
    assert idle_too_long(workers, now_unix=400, limit_s=0) == ()

"""What a worker died of: what it said, what its exit tells, what the kernel counted."""

import signal
from dataclasses import replace

import pytest

from rbee_hive.domain.workers.death import Exit, OomKills, is_foreign_kill, why_it_died
from rbee_hive.domain.workers.oom_counts import SENTENCE_S, Look, counted_before, unexplained
from rbee_shared.contracts.workers import WorkerState
from rbee_shared.errors import InferenceStalledError, NoCapacityError, PortInUseError

S = WorkerState
KILLED = Exit(-signal.SIGKILL, ("last words",), OomKills(1, "/sys/fs/cgroup/x/memory.events"), 7_000_000)


@pytest.mark.parametrize(
    ("state", "returncode", "code"),
    [
        pytest.param(S.LOADING, -signal.SIGSEGV, "MODEL_INVALID", id="a segfault while loading blames the file"),
        pytest.param(S.LOADING, -signal.SIGABRT, "MODEL_INVALID", id="so does an abort"),
        pytest.param(S.LOADING, -signal.SIGKILL, "WORKER_CRASHED", id="a kill does not: the system's or a person's"),
        pytest.param(S.STARTING, -signal.SIGSEGV, "WORKER_CRASHED", id="it has not opened the file yet"),
        pytest.param(S.BUSY, -signal.SIGSEGV, "WORKER_CRASHED", id="a loaded model was valid"),
        pytest.param(S.IDLE, 0, "WORKER_CRASHED", id="an exit without an order is no success"),
    ],
)
def test_the_exit_tells(state: WorkerState, returncode: int, code: str) -> None:
    error = why_it_died(state, Exit(returncode, ("last words",)), None, "/m.gguf")

    assert error.code == code
    assert error.details["last_words"] == ["last words"]


@pytest.mark.parametrize("state", [S.STARTING, S.LOADING, S.IDLE, S.BUSY])
def test_a_kill_that_the_kernel_counted_is_for_lack_of_memory_and_has_the_numbers(state: WorkerState) -> None:
    error = why_it_died(state, KILLED, None, "/m.gguf")

    assert error.code == "INSUFFICIENT_MEMORY"
    assert "the kernel ended the worker for lack of memory" in error.message
    assert "SIGKILL" in error.message
    assert error.details["oom_kills"] == 1
    assert error.details["counted_in"] == "/sys/fs/cgroup/x/memory.events"
    assert error.details["resident_bytes"] == 7_000_000


def test_no_other_signal_is_the_kernels_memory_kill() -> None:
    assert why_it_died(S.BUSY, replace(KILLED, returncode=-signal.SIGSEGV), None, "m").code == "WORKER_CRASHED"


def test_only_a_kill_that_nothing_else_explains_is_asked_about() -> None:
    assert is_foreign_kill(-signal.SIGKILL, None)
    assert not is_foreign_kill(-signal.SIGKILL, InferenceStalledError("ours"))
    assert not is_foreign_kill(-signal.SIGSEGV, None)


def test_a_sentence_is_carried_out_within_seconds_or_was_another_processs() -> None:
    died_s = 100.0
    old, edge, last = died_s - SENTENCE_S - 9, died_s - SENTENCE_S, died_s - 1
    assert counted_before([], died_s) == {}
    assert counted_before([Look(last, "g", 3)], died_s) == {"g": 3}, "it has not lived longer"
    assert counted_before([Look(old, "g", 1), Look(edge, "g", 2), Look(last, "g", 3)], died_s) == {"g": 2}
    assert counted_before([Look(old, "g", 1), Look(last, "g", 3)], died_s) == {"g": 1}, "nobody looked in between"


def test_the_counter_that_was_looked_at_last_comes_first() -> None:
    looks = [Look(97, "small", 1), Look(98, "root", 7), Look(99, "small", 2)]
    assert list(counted_before(looks, 100).items()) == [("small", 1), ("root", 7)]


@pytest.mark.parametrize(
    ("before", "spent", "now", "kills"),
    [
        pytest.param(3, 0, 3, range(3, 3), id="none since"),
        pytest.param(3, 0, 4, range(3, 4), id="one since"),
        pytest.param(3, 4, 4, range(4, 4), id="it explains another death already"),
        pytest.param(3, 4, 5, range(4, 5), id="there was a second one"),
        pytest.param(5, 2, 6, range(5, 6), id="one that explained nothing in its time never will"),
        pytest.param(0, 9, 1, range(1), id="the group was made anew under its name"),
    ],
)
def test_each_kill_explains_one_death(before: int, spent: int, now: int, kills: range) -> None:
    assert list(unexplained(before, spent, now)) == list(kills)


def test_a_kill_of_our_own_is_not_the_kernels() -> None:
    verdict = InferenceStalledError("no step for 60 s")

    assert why_it_died(S.BUSY, KILLED, verdict, "m") is verdict


def test_what_it_said_itself_wins() -> None:
    said = NoCapacityError("too many processes")

    assert why_it_died(S.STARTING, Exit(1), said, "m") is said


def test_ports_that_are_all_held_are_a_lack_of_room() -> None:
    said = PortInUseError("every port from 8001 to 9000 is held", details={"port": 8001})

    error = why_it_died(S.STARTING, Exit(1), said, "m")

    assert (error.code, error.message) == ("NO_CAPACITY", said.message)
    assert error.details == {"port": 8001}

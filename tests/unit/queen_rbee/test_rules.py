"""The queen's small decisions: admission, task states, liveness, idleness."""

from dataclasses import replace
from itertools import product

import pytest

from queen_rbee.domain.admission import admit
from queen_rbee.domain.facts import WorkerFacts
from queen_rbee.domain.idle import idle_too_long
from queen_rbee.domain.liveness import judge
from queen_rbee.domain.task_state import FINISHED, advance
from rbee_shared.contracts.nodes import NodeState
from rbee_shared.contracts.tasks import TaskState
from rbee_shared.contracts.workers import WorkerState
from rbee_shared.errors import QueueFullError

_ALLOWED = {
    (TaskState.QUEUED, TaskState.PREPARING),
    (TaskState.QUEUED, TaskState.FAILED),
    (TaskState.QUEUED, TaskState.CANCELLED),
    (TaskState.PREPARING, TaskState.RUNNING),
    (TaskState.PREPARING, TaskState.FAILED),
    (TaskState.PREPARING, TaskState.CANCELLED),
    (TaskState.RUNNING, TaskState.COMPLETED),
    (TaskState.RUNNING, TaskState.FAILED),
    (TaskState.RUNNING, TaskState.CANCELLED),
}


def test_a_queue_is_bounded_per_model_and_in_all() -> None:
    admit("a", ["a", "b"], per_model=2, in_all=3)
    with pytest.raises(QueueFullError, match="2 tasks are waiting for a already"):
        admit("a", ["a", "a"], per_model=2, in_all=9)
    with pytest.raises(QueueFullError, match="3 tasks are waiting already"):
        admit("c", ["a", "a", "b"], per_model=9, in_all=3)


@pytest.mark.parametrize(("old", "new"), list(product(TaskState, TaskState)))
def test_a_task_only_moves_forward(old: TaskState, new: TaskState) -> None:
    if old is new or (old, new) in _ALLOWED:
        assert advance(old, new) is new
    else:
        with pytest.raises(ValueError, match=f"from {old} to {new}"):
            advance(old, new)


def test_finished_states_are_the_last_three() -> None:
    assert {TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED} == FINISHED


@pytest.mark.parametrize(
    ("age_s", "state"),
    [(0, NodeState.ONLINE), (5.9, NodeState.ONLINE), (6, NodeState.SUSPECT), (10, NodeState.OFFLINE)],
)
def test_a_hive_is_judged_by_the_age_of_its_last_word(age_s: float, state: NodeState) -> None:
    assert judge(age_s, suspect_s=6, lost_s=10) is state


def test_only_workers_idle_for_the_whole_limit_are_stopped() -> None:
    def worker(id_: str, state: WorkerState, since_s: float) -> WorkerFacts:
        return WorkerFacts(id_, "n", "m", "cpu", "cpu", state, 1, since_s)

    workers = [
        worker("old", WorkerState.IDLE, 0),
        worker("young", WorkerState.IDLE, 50),
        worker("busy", WorkerState.BUSY, 0),
        replace(worker("pinned", WorkerState.IDLE, 0), pinned=True),
        replace(worker("promised", WorkerState.IDLE, 0), in_use=True),
    ]

    assert idle_too_long(workers, now_s=100, limit_s=100) == ("old",)
    assert idle_too_long(workers, now_s=1000, limit_s=0) == ()

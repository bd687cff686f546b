"""Is a hive still there? Judged by the age of its last heartbeat."""

from rbee_shared.contracts.nodes import NodeState


def judge(age_s: float, *, suspect_s: float, lost_s: float) -> NodeState:
    """ONLINE, then SUSPECT (gets no new work), then OFFLINE (its workers are gone for us)."""
    if age_s >= lost_s:
        return NodeState.OFFLINE
    return NodeState.SUSPECT if age_s >= suspect_s else NodeState.ONLINE

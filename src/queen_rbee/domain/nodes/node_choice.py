"""Which nodes may a task go to that names none? The best first; the rest for when that one cannot be had.

The order: one that has a worker for the model; else one that has the model; else, for what can be fetched anywhere,
the one with the strongest device. One that is up goes before one that sleeps, this machine before another.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from queen_rbee.domain.facts import Wish, WorkerFacts
from queen_rbee.domain.nodes.node import Node
from rbee_shared.model_ref import parse_model_ref

_FETCHED_ANYWHERE = frozenset({"hf", "url"})


@dataclass(frozen=True)
class NodeFacts:
    """A node of the catalog at one moment. `models`: every name under which it knows one."""

    node: Node
    is_up: bool
    models: frozenset[str]


@dataclass(frozen=True)
class Candidate:
    """A node, and why it may do."""

    name: str
    reason: str


def candidates(wish: Wish, nodes: Iterable[NodeFacts], workers: Iterable[WorkerFacts]) -> tuple[Candidate, ...]:
    """The nodes for `wish`, best first; none if no node that is not drained has such a backend or such a model."""
    serving = {worker.node for worker in workers if worker.model_ref == wish.model_ref}
    found = []
    for facts in nodes:
        if facts.node.drained or not _may_have(facts.node, wish.backend):
            continue
        if (standing := _standing(facts, wish, serving)) is not None:
            rank, what = standing
            state = "is up" if facts.is_up else "is asleep"
            found.append(
                (rank, *_nearness(facts, wish), Candidate(facts.node.name, f"{facts.node.name} {what}, {state}"))
            )
    return tuple(candidate for *_, candidate in sorted(found, key=lambda entry: entry[:-1]))


def _standing(facts: NodeFacts, wish: Wish, serving: Collection[str]) -> tuple[int, str] | None:
    """How well a node stands for the model, 0 best; None if it cannot have it."""
    provider = parse_model_ref(wish.model_ref).provider
    if facts.node.name in serving:
        return 0, "has a worker for it"
    if wish.model_ref in facts.models:
        return 1, "has the model"
    if provider in _FETCHED_ANYWHERE:
        return 2, "can fetch the model"
    if provider == "builtin":
        return 2, "can have the model"
    return (2, "is this machine") if facts.node.is_local else None


def _nearness(facts: NodeFacts, wish: Wish) -> tuple[bool, int, bool, str]:
    """A model that ships with rbee needs no strong device: for that one the nearest is the best."""
    memory_bytes = max((device.memory_bytes for device in facts.node.devices if device.is_gpu), default=0)
    if parse_model_ref(wish.model_ref).provider == "builtin":
        return not facts.node.is_local, 0, not facts.is_up, facts.node.name
    return not facts.is_up, -memory_bytes, not facts.node.is_local, facts.node.name


def _may_have(node: Node, backend: str | None) -> bool:
    """One that was never heard may have anything."""
    return backend is None or not node.devices or any(device.backend == backend for device in node.devices)

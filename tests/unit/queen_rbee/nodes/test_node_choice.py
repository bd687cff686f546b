"""Where a task may go that names no node: the best first, and why."""

import pytest

from queen_rbee.domain.facts import Wish, WorkerFacts
from queen_rbee.domain.nodes.node import KnownDevice, Node
from queen_rbee.domain.nodes.node_choice import NodeFacts, candidates
from rbee_shared.contracts.workers import WorkerState

HF = "hf:owner/repo"
LOCAL = Node("localhost", "local", devices=(KnownDevice("cpu", "cpu", 32),))
MAC = Node("mac", "ssh", devices=(KnownDevice("gpu0", "metal", 36),))
BIG = Node("big", "ssh", devices=(KnownDevice("cpu", "cpu", 500), KnownDevice("gpu0", "cuda", 80)))
NEW = Node("new", "ssh")


def _facts(node: Node, *models: str, up: bool = False) -> NodeFacts:
    return NodeFacts(node, up, frozenset(models))


def _worker(node: str, model_ref: str) -> WorkerFacts:
    return WorkerFacts("w", node, model_ref, "cpu", "cpu", WorkerState.IDLE, 1, 0.0)


def _names(wish: Wish, *nodes: NodeFacts, workers: tuple[WorkerFacts, ...] = ()) -> list[str]:
    return [candidate.name for candidate in candidates(wish, nodes, workers)]


@pytest.mark.parametrize(
    ("model", "nodes", "expected"),
    [
        pytest.param("tiny", [_facts(LOCAL), _facts(MAC, "tiny")], ["mac", "localhost"], id="who has it goes first"),
        pytest.param("tiny", [_facts(MAC), _facts(BIG)], [], id="an id that nobody knows is nowhere"),
        pytest.param(HF, [_facts(LOCAL), _facts(MAC), _facts(BIG)], ["big", "mac", "localhost"], id="the strongest"),
        pytest.param(HF, [_facts(BIG), _facts(MAC, up=True)], ["mac", "big"], id="who is up goes before who sleeps"),
        pytest.param(HF, [_facts(BIG), _facts(MAC, HF)], ["mac", "big"], id="nothing is fetched twice"),
        pytest.param(
            "builtin:s", [_facts(BIG, up=True), _facts(LOCAL)], ["localhost", "big"], id="the nearest will do"
        ),
        pytest.param("file:/m.gguf", [_facts(BIG, up=True), _facts(LOCAL)], ["localhost"], id="a file of this machine"),
        pytest.param(
            "file:/m.gguf", [_facts(BIG, "file:/m.gguf"), _facts(LOCAL)], ["big", "localhost"], id="of that one"
        ),
    ],
)
def test_the_order(model: str, nodes: list[NodeFacts], expected: list[str]) -> None:
    assert _names(Wish(model, None), *nodes) == expected


def test_a_worker_that_is_there_beats_everything() -> None:
    nodes = [_facts(BIG, HF, up=True), _facts(MAC, up=True)]
    found = candidates(Wish(HF, None), nodes, [_worker("mac", HF), _worker("big", "another")])
    assert [(c.name, c.reason) for c in found] == [
        ("mac", "mac has a worker for it, is up"), ("big", "big has the model, is up"),
    ]  # fmt: skip


def test_a_drained_node_is_none() -> None:
    drained = Node("mac", "ssh", drained=True)
    assert _names(Wish(HF, None), _facts(drained, HF, up=True), _facts(LOCAL)) == ["localhost"]


def test_the_backend_must_be_there_as_far_as_is_known() -> None:
    nodes = [_facts(LOCAL), _facts(MAC), _facts(BIG), _facts(NEW)]
    assert _names(Wish(HF, None, "cuda"), *nodes) == ["big", "new"]
    assert _names(Wish(HF, None, "cpu"), *nodes) == ["big", "localhost", "new"]


def test_names_and_addresses_mean_a_node() -> None:
    node = Node("mac", "ssh", host="Mac.home.arpa")
    assert [node.is_called(name) for name in ("MAC", "mac.HOME.arpa", "mac2")] == [True, True, False]
    assert (node.address, MAC.address, LOCAL.is_local, MAC.is_local) == ("Mac.home.arpa", "mac", True, False)

"""The parts of `pool` that ask nobody."""

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from rbee_keeper.commands.options import node_name
from rbee_keeper.pool.hosts import asleep, hosts_named, no_answer
from rbee_keeper.wire_forms import fields_of, order_of, read_as
from rbee_shared.contracts.hives import WorkerFarewell
from rbee_shared.contracts.nodes import NodeFault, NodeOrder, NodeState, NodeView
from rbee_shared.errors import BadPeerError, InvalidRequestError


def test_hosts_are_named_once_and_this_machine_is_the_default() -> None:
    assert hosts_named(None) == hosts_named([]) == ("localhost",)
    assert hosts_named(["mac", "pc", "mac"]) == ("mac", "pc")


@pytest.mark.parametrize("name", ["mac", "fe80::1%eth0", "mac.home.arpa", "all", "bücher", "x" * 255])
def test_names_and_addresses_of_nodes(name: str) -> None:
    assert node_name(name) == name


@given(st.text(max_size=300))
def test_no_name_can_leave_its_place_in_a_url_or_steer_a_terminal(text: str) -> None:
    try:
        name = node_name(text)
    except typer.BadParameter as error:
        assert str(error).isascii()  # noqa: PT017 - either may come
        assert str(error).isprintable()  # noqa: PT017 - same
        return
    assert name == text
    assert 0 < len(name) <= 255
    assert not {part for part in name if part in "/\x7f\u202e\u2028" or part.isspace() or ord(part) < 32}


@pytest.mark.parametrize(
    ("fault", "as_answer", "as_none"),
    [(None, 0, 3), ("SSH_AUTH_FAILED", 4, 4), ("DISK_FULL", 5, 5), ("NOT_INVENTED_YET", 1, 1)],
)
def test_a_machine_that_failed_is_not_merely_asleep(fault: str | None, as_answer: int, as_none: int) -> None:
    told = NodeFault(code=fault, message="m", hint="h", at_ms=5) if fault else None
    node = NodeView(name="mac", transport="ssh", state=NodeState.OFFLINE, last_error=told)

    assert (asleep(node).exit_status, no_answer(node).exit_status) == (as_answer, as_none)


def test_arguments_that_were_not_given_are_not_sent() -> None:
    order = order_of(NodeOrder, name="mac", host=None, port=None)

    assert fields_of(order) == {"name": "mac"}
    assert fields_of(order.model_copy(update={"port": None})) == {"name": "mac", "port": None}


def test_every_wrong_argument_is_named() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        order_of(NodeOrder, name="-", port=0, user="a b")

    assert {fault["field"] for fault in caught.value.details["errors"]} == {"name", "port", "user"}


@given(
    st.dictionaries(st.sampled_from(["worker_id", "state", "memory", "error"]), st.none() | st.integers() | st.text())
)
def test_an_answer_of_another_form_is_nonsense(answer: dict[str, object]) -> None:
    try:
        read_as(WorkerFarewell, answer, who="the hive at mac")
    except BadPeerError as error:
        assert error.message.startswith("the answer of the hive at mac is no WorkerFarewell: ")  # noqa: PT017 - same

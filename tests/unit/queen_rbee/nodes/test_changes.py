"""An order about a node that is known changes what it names, and nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from queen_rbee.domain.nodes.changes import completed
from queen_rbee.domain.nodes.node import Node
from rbee_shared.contracts.nodes import NodeOrder

MAC = Node(
    "mac", "http", host="10.0.0.3", port=2222, user="rita", key="/k", hive_port=9300, home="~/bee", installs=False
)  # fmt: skip
KNOWN = {
    "name": "mac", "transport": "http", "host": "10.0.0.3", "port": 2222, "user": "rita", "key": "/k",
    "hive_port": 9300, "home": "~/bee", "install": False, "fingerprint": None,
}  # fmt: skip
GIVEN = {
    "transport": "ssh", "host": "mac.home.arpa", "port": 22, "user": "me", "key": "~/k", "hive_port": 9200,
    "home": "/bee", "install": True, "fingerprint": "SHA256:" + "n" * 43,
}  # fmt: skip
DEFAULTS = ["host", "port", "user", "key", "hive_port", "home"]


@given(st.sets(st.sampled_from(sorted(GIVEN))))
def test_what_is_named_changes_and_the_rest_stays(named: set[str]) -> None:
    order = NodeOrder.model_validate({"name": "mac"} | {name: GIVEN[name] for name in named})
    assert completed(order, MAC).model_dump() == {
        name: GIVEN[name] if name in named else value for name, value in KNOWN.items()
    }


@pytest.mark.parametrize("nothing", [None, ""])
@pytest.mark.parametrize("field", DEFAULTS)
def test_an_empty_value_is_the_default_again(field: str, nothing: Any) -> None:
    order = NodeOrder.model_validate({"name": "mac", field: nothing})
    assert completed(order, MAC).model_dump() == {**KNOWN, field: None}


@pytest.mark.parametrize("field", ["name", "transport", "install"])
def test_what_is_always_something_cannot_be_empty(field: str) -> None:
    with pytest.raises(ValidationError):
        NodeOrder.model_validate({"name": "mac", field: ""})


@pytest.mark.parametrize("key", ["k", "../k", "~rita/k", "/k\n", "~", "-oProxyCommand=x"])
def test_a_key_is_a_file_that_the_queen_finds(key: str) -> None:
    with pytest.raises(ValidationError):
        NodeOrder(name="mac", key=key)

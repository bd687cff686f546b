"""Which names can be the queen's own, before anybody is asked where they lead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.domain.nodes.own_name import could_be_own, is_own


@pytest.mark.parametrize(
    ("wanted", "hostname", "own", "perhaps"),
    [
        ("localhost", "blep", True, False),
        ("LocalHost", "blep", True, False),
        ("blep", "blep", True, True),
        ("BLEP", "Blep", True, True),
        ("blep", "blep.home.arpa", True, True),
        ("blep.home.arpa", "blep.home.arpa", True, True),
        ("blep.home.arpa", "blep", False, True),
        ("Blep.local", "blep.home.arpa", False, True),
        ("mac", "blep", False, False),
        ("mac.home.arpa", "blep.home.arpa", False, False),
        ("blepharo", "blep", False, False),
        ("10.0.0.3", "blep", False, True),
        ("fe80::1", "blep", False, True),
        ("10.0.0", "blep", False, False),
    ],
)
def test_names(wanted: str, hostname: str, own: bool, perhaps: bool) -> None:
    assert (is_own(wanted, hostname), could_be_own(wanted, hostname)) == (own, perhaps)


@given(st.text(), st.text())
def test_any_text_has_an_answer(wanted: str, hostname: str) -> None:
    assert could_be_own(wanted, hostname) in {True, False}
    assert is_own(hostname, hostname)

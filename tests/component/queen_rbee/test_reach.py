"""Where a program of a node answers from here."""

import pytest

from queen_rbee.reach import Callback, DirectReach

CALLBACK = Callback("http://q", "secret-token")


@pytest.mark.parametrize(
    ("address", "url", "expected"),
    [
        (None, "http://127.0.0.1:8001", "http://127.0.0.1:8001"),
        ("10.0.0.3", "http://127.0.0.1:8001", "http://10.0.0.3:8001"),
        ("10.0.0.3", "http://10.0.0.3:8001", "http://10.0.0.3:8001"),
        ("fd00::3", "http://[::1]:8001", "http://[fd00::3]:8001"),
        ("10.0.0.3", "http://mac:8001", "http://mac:8001"),
    ],
)
async def test_a_program_that_names_only_itself_is_looked_for_on_its_node(
    address: str | None, url: str, expected: str
) -> None:
    assert await DirectReach(CALLBACK, address).url(url) == expected


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(CALLBACK)

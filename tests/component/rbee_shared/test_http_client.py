"""Control calls to addresses that peers name."""

import pytest

from rbee_shared.errors import NodeUnreachableError
from rbee_shared.http_client import call, http_client


@pytest.mark.parametrize(
    "url", ["http://[::1", "nonsense", "", "http://127.0.0.1:99999", "ftp://x", "http://127.0.0.1:1"]
)
async def test_an_address_that_leads_nowhere_is_unreachable(url: str) -> None:
    async with http_client() as client:
        with pytest.raises(NodeUnreachableError):
            await call(client, "GET", url, unreachable=NodeUnreachableError)

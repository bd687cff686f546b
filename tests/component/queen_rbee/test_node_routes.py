"""`/v2/nodes` of a real queen: what is refused before anything is tried, and what is done about her own machine."""

from typing import Any

import anyio
import httpx2
import pytest
from tests.support.queen import LiveQueen
from tests.support.scripted_node import ScriptedNode

from rbee_shared import sse


async def _ask(queen: LiveQueen, method: str, path: str, body: Any = None, **headers: str) -> httpx2.Response:
    return await queen.client.request(method, f"{queen.url}{path}", json=body, headers=headers, timeout=60)


def _error(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "/v2/nodes/nowhere", None, (404, "NODE_NOT_FOUND")),
        ("DELETE", "/v2/nodes/nowhere", None, (404, "NODE_NOT_FOUND")),
        ("POST", "/v2/nodes/nowhere/start", {}, (404, "NODE_NOT_FOUND")),
        ("POST", "/v2/nodes/nowhere/trust", None, (404, "NODE_NOT_FOUND")),
        ("GET", "/v2/nodes/nowhere/pool/v1/status", None, (404, "NODE_NOT_FOUND")),
        ("POST", "/v2/nodes/localhost/dance", {}, (404, "NOT_FOUND")),
        ("POST", "/v2/nodes/localhost/install", {}, (400, "INVALID_REQUEST")),
        ("POST", "/v2/nodes/localhost/uninstall", {}, (400, "INVALID_REQUEST")),
        ("POST", "/v2/nodes", {"name": "localhost"}, (400, "INVALID_REQUEST")),
        ("POST", "/v2/nodes", {"name": "-oProxyCommand=x"}, (400, "INVALID_REQUEST")),
        ("POST", "/v2/nodes", {"name": "mac", "user": "a b"}, (400, "INVALID_REQUEST")),
        ("POST", "/v2/nodes", {"name": "mac", "home": "relative"}, (400, "INVALID_REQUEST")),
        ("POST", "/v2/nodes", {"name": "mac", "home": "/a\nb"}, (400, "INVALID_REQUEST")),
        ("POST", "/v2/nodes", {"name": "mac", "fingerprint": "MD5:00"}, (400, "INVALID_REQUEST")),
        ("POST", "/v2/nodes", {"name": "mac", "transport": "local"}, (400, "INVALID_REQUEST")),
        ("GET", "/v2/nodes/localhost/pool/v1/status", None, (502, "NODE_UNREACHABLE")),
    ],
)
async def test_what_cannot_be_is_refused(
    queen: LiveQueen, method: str, path: str, body: Any, expected: tuple[int, str]
) -> None:
    assert _error(await _ask(queen, method, path, body)) == expected


async def test_everything_about_nodes_wants_the_token(queen: LiveQueen) -> None:
    for method, path in (("GET", "/v2/nodes"), ("POST", "/v2/nodes"), ("POST", "/v2/nodes/localhost/stop"),
                         ("GET", "/v2/nodes/localhost/pool/v1/status"), ("DELETE", "/v2/nodes/localhost")):  # fmt: skip
        response = await _ask(queen, method, path, Authorization="")
        assert _error(response) == (401, "MISSING_API_KEY"), path


async def test_a_drained_node_gets_no_work_until_it_is_resumed(queen: LiveQueen, node: ScriptedNode) -> None:
    drained = await _ask(queen, "POST", "/v2/nodes/localhost/drain")
    assert drained.json()["node"]["drained"] is True
    named = await queen.events(await queen.submit(node="localhost"))
    assert named[-1]["code"] == "NO_CAPACITY"
    assert "node resume localhost" in named[-1]["hint"]

    await _ask(queen, "POST", "/v2/nodes/localhost/resume")
    events = await queen.events(await queen.submit(node="localhost"))
    assert events[-1]["type"] == "end"


async def test_an_action_is_told_as_it_happens_and_ends_once(queen: LiveQueen, node: ScriptedNode) -> None:
    response = await _ask(queen, "POST", "/v2/nodes/localhost/drain", None, Accept="text/event-stream")
    frames = sse.FrameSplitter().feed(response.content)
    assert [frame.event for frame in frames[:-1]] == ["narration", "end"]
    assert frames[-1].data == sse.DONE_DATA
    assert frames[-2].json()["node"]["name"] == "localhost"


async def test_the_hives_own_api_is_passed_on_but_not_what_only_a_queen_says(
    queen: LiveQueen, node: ScriptedNode
) -> None:
    await queen.events(await queen.submit())
    assert (await _ask(queen, "GET", "/v2/nodes/localhost/pool/v1/workers/list")).json()["workers"]
    assert (await _ask(queen, "GET", "/v2/nodes/localhost/pool/v1/nothing")).status_code == 404
    for path in ("v1/adopt", "v1/shutdown", "shutdown", "v1/workers/ready", "v1/heartbeat/workers"):
        response = await _ask(queen, "POST", f"/v2/nodes/localhost/pool/{path}", {})
        assert _error(response) == (403, "FORBIDDEN"), path
    assert node.script.beating, "it has not been told to go"


async def test_no_spelling_of_it_gets_through_either(queen: LiveQueen, node: ScriptedNode) -> None:
    """Sent as it stands: clients make one path of it, and so do libraries behind the queen's own door."""
    for path in (
        "v1/../shutdown", "v1/%2e%2e/shutdown", "v1/x/%2E%2e/%2e./shutdown", "v1/x/%2e%2e/adopt", "v1/%2e/shutdown",
        "v1/%2fshutdown", "v1/..%2fshutdown", "v1%2fadopt", "v1/ado%70t", "v1/adopt/", "v1//adopt", "%2e%2e/v1/adopt",
    ):  # fmt: skip
        assert await _raw_status(queen, f"/v2/nodes/localhost/pool/{path}") == 403, path
    assert node.script.beating, "it has not been told to go"


async def _raw_status(queen: LiveQueen, target: str) -> int:
    host, _, port = queen.url.removeprefix("http://").partition(":")
    head = f"POST {target} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {queen.token}\r\ncontent-length: 0\r\n\r\n"
    async with await anyio.connect_tcp(host, int(port)) as stream:
        await stream.send(head.encode())
        return int((await stream.receive()).split()[1])

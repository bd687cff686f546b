"""The client for applications, against a scripted queen and against peers that are no queen."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.abc
import pytest
from tests.support.fake_queen import ANSWER
from tests.support.keeper_lab import KeeperLab

from rbee_shared.clocks import Clocks
from rbee_shared.errors import (
    BadPeerError,
    InvalidRequestError,
    MissingApiKeyError,
    QueenLostError,
    QueueFullError,
    RbeeError,
    StreamTruncatedError,
)
from rbee_shared.lean_http import parse_url
from rbee_shared.queen_api import QueenApi

IMPATIENT = Clocks(connect_s=1, control_call_s=0.5, sse_ping_s=0.2)


@pytest.fixture
def lab(tmp_path: Path) -> Generator[KeeperLab]:
    made = KeeperLab(tmp_path)
    yield made
    made.close()


async def answer_of(api: QueenApi) -> str:
    text = ""
    async with api.stream({"prompt": "x"}) as events:
        async for event in events:
            text += event.data["t"] if event.type == "token" else ""
    return text


async def test_streams_to_the_end(lab: KeeperLab) -> None:
    api = QueenApi(lab.start_queen())

    async with api.stream({"prompt": "x"}) as events:
        kinds = [event.type async for event in events]

    assert kinds[-1] == "end"
    assert kinds.count("token") == len(ANSWER)


async def test_leaving_the_block_hangs_up(lab: KeeperLab) -> None:
    api = QueenApi(lab.start_queen("--token-s", "0.1"))

    async with api.stream({"prompt": "x"}) as events:
        async for event in events:
            if event.type == "token":
                break

    with anyio.fail_after(5):
        while not lab.notes("hung_up"):  # noqa: ASYNC110 - another process writes them
            await anyio.sleep(0.02)


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--truncate-after", "2"], StreamTruncatedError),
        (["--die-after", "2"], QueenLostError),
        (["--garbage"], BadPeerError),
        (["--refuse", "QUEUE_FULL"], QueueFullError),
    ],
)
async def test_a_stream_never_just_stops(lab: KeeperLab, flags: list[str], error: type[RbeeError]) -> None:
    api = QueenApi(lab.start_queen(*flags))

    with pytest.raises(error):
        await answer_of(api)


async def test_steering_wants_the_token(lab: KeeperLab) -> None:
    url = lab.start_queen()
    with pytest.raises(MissingApiKeyError):
        await QueenApi(url).shutdown()

    token = (lab.home / "token").read_text().strip()
    api = QueenApi(url, token)

    assert [node["state"] for node in await api.nodes()] == ["online"]
    assert await api.shutdown() == {"status": "shutting_down"}


async def test_a_hold_tells_what_happens_at_the_end(lab: KeeperLab) -> None:
    url = lab.start_queen("--ephemeral")
    api = QueenApi(url, (lab.home / "token").read_text().strip())

    async with api.hold() as hold:
        assert await api.shutdown(hold_id=hold.hold_id) == {"status": "shutting_down"}
        said = [event.data["human"] async for event in hold.events]

    assert said == ["goodbye"]


async def test_nobody_there() -> None:
    with pytest.raises(QueenLostError, match="connection refused"):
        await QueenApi("http://127.0.0.1:1").health()


async def test_a_stranger_is_no_queen(lab: KeeperLab) -> None:
    with pytest.raises(BadPeerError, match="is not a queen"):
        await QueenApi(lab.start_queen("--stranger")).health()


@contextmanager
def serving_bytes(reply: bytes) -> Generator[str]:
    """Something that answers every connection with `reply` and keeps it open if that is empty."""
    program = (
        "import socket, sys\n"
        "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)\n"
        f"reply = {reply!r}\nkept = []\n"
        "while True:\n"
        "    c, _ = s.accept(); c.recv(65536); c.sendall(reply); kept.append(c) if not reply else c.close()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", BadPeerError, id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nhello", BadPeerError, id="no JSON"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", QueenLostError, id="cut off"),
        pytest.param(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\n{}", BadPeerError, id="a proxy"),
        pytest.param(b"", QueenLostError, id="silence"),
    ],
)
async def test_whatever_listens_there_is_told_apart(reply: bytes, error: type[RbeeError]) -> None:
    with serving_bytes(reply) as url, anyio.fail_after(5), pytest.raises(error):
        await QueenApi(url, clocks=IMPATIENT).health()


@pytest.mark.parametrize("url", ["https://x", "x:80", "http://", "http://u:p@x", "http://x?y", "http://x:99999"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(InvalidRequestError):
        QueenApi(url)


def test_addresses() -> None:
    assert parse_url("http://[::1]:8080/rbee/").path == "/rbee"
    assert parse_url("http://[::1]:8080").netloc == "[::1]:8080"
    assert parse_url("http://127.0.0.2").is_loopback
    assert not parse_url("http://queen.lan:8080").is_loopback

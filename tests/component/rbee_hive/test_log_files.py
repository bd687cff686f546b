"""`GET /v1/logs`: the end of a log, and what follows, whatever happens to the file meanwhile."""

import os
import shutil
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
from tests.support.hive import TOKEN, LiveHive, operators_hive
from tests.support.processes import open_fds, wait_until

from rbee_hive.log_files import LogReader, followed, tail
from rbee_shared.errors import NotFoundError
from rbee_shared.sse import DONE, PING, FrameSplitter

_PATIENCE_S = 20.0


@pytest.fixture
def reader(tmp_path: Path) -> Generator[LogReader]:
    (tmp_path / "a.log").write_text("one\ntwo\n")
    reader = LogReader.open(tmp_path, "a.log")
    yield reader
    reader.close()


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_a_line_is_told_when_it_is_whole(reader: LogReader, tmp_path: Path) -> None:
    assert reader.last(1) == ["two"]
    append(tmp_path / "a.log", "thr")
    assert reader.more() == []
    append(tmp_path / "a.log", "ee\r\nfour\nfi")
    assert reader.more() == ["three", "four"]
    assert reader.more() == []


def test_a_file_that_was_emptied_is_read_anew(reader: LogReader, tmp_path: Path) -> None:
    assert reader.last(9) == ["one", "two"]
    os.truncate(tmp_path / "a.log", 0)
    assert reader.more() == []
    append(tmp_path / "a.log", "new\n")
    assert reader.more() == ["new"]


def test_a_file_that_was_rotated_is_read_to_its_end_and_then_its_successor(reader: LogReader, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    reader.last(9)
    append(log, "last of the old\n")
    log.rename(tmp_path / "a.log.1")
    append(tmp_path / "a.log.1", "written by who had it open\n")
    assert reader.more() == ["last of the old", "written by who had it open"]
    assert reader.more() == [], "there is no successor yet"
    append(log, "first of the new\n")
    assert reader.more() == ["first of the new"]
    append(log, "second\n")
    assert reader.more() == ["second"]


def test_a_successor_that_leads_elsewhere_is_not_followed(reader: LogReader, tmp_path: Path) -> None:
    reader.last(9)
    (tmp_path / "secret").write_text("of another file\n")
    (tmp_path / "a.log").unlink()
    (tmp_path / "a.log").symlink_to(tmp_path / "secret")
    assert reader.more() == []


def test_lines_are_bounded_printable_and_keep_no_secret(tmp_path: Path) -> None:
    hostile = b"x" * 1_000_000 + b"\n\xff\x1b[31mred\nAuthorization: Bearer abcdefghijklmnop\n"
    (tmp_path / "a.log").write_bytes(hostile)
    long, red, secret = tail(tmp_path, "a.log", 3)
    assert len(long) <= 64 * 1024
    assert "\x1b" not in red
    assert "abcdefghijklmnop" not in secret


def test_the_end_of_a_huge_file_is_found_without_reading_it(tmp_path: Path) -> None:
    with (tmp_path / "a.log").open("wb") as file:
        file.truncate(2**40)
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast\nunfinished")
    assert tail(tmp_path, "a.log", 2) == ["last", "unfinished"]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "linked", "gone", ".", "", "folder", "a\x00b"])
def test_no_name_leads_elsewhere(tmp_path: Path, name: str) -> None:
    logs = tmp_path / "logs"
    (logs / "folder").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret\n")
    (logs / "linked").symlink_to(tmp_path / "secret")
    for read in (lambda: tail(logs, name, 5), lambda: LogReader.open(logs, name)):
        with pytest.raises(NotFoundError):
            read()


async def test_a_stream_that_cannot_be_read_any_more_ends_with_its_reason(reader: LogReader) -> None:
    reader._file.close()
    reader._file = open_directory_instead()
    said = b""
    with anyio.fail_after(_PATIENCE_S):
        async for chunk in followed(reader, ["one"], is_over=lambda: False, ping_s=10):
            said += chunk
    assert [frame.event for frame in FrameSplitter().feed(said)] == ["log", "error", "message"]
    assert said.endswith(DONE)


def open_directory_instead() -> Any:
    class Broken:
        def tell(self) -> int:
            raise OSError(5, "Input/output error")

        def close(self) -> None:
            return

    return Broken()


async def test_silence_is_broken_by_comments_and_the_end_is_told(reader: LogReader, tmp_path: Path) -> None:
    over, chunks = anyio.Event(), []
    async for chunk in followed(reader, reader.last(1), is_over=over.is_set, ping_s=0.01):
        chunks.append(chunk)
        if chunk == PING and not over.is_set():
            append(tmp_path / "a.log", "the very last\n")
            over.set()
    frames = FrameSplitter().feed(b"".join(chunks))
    assert PING in chunks
    assert [frame.json()["line"] for frame in frames if frame.event == "log"] == ["two", "the very last"]
    assert [frame.event for frame in frames][-2:] == ["end", "message"]
    assert chunks[-1].endswith(DONE)


# of a hive


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncGenerator[LiveHive]:
    async with operators_hive(tmp_path / "home") as live:
        yield live


@asynccontextmanager
async def following(hive: LiveHive, query: str) -> AsyncGenerator[AsyncGenerator[str]]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with hive.client.stream("GET", f"{hive.url}/v1/logs?{query}", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield _lines(response)


async def _lines(response: httpx2.Response) -> AsyncGenerator[str]:
    splitter = FrameSplitter()
    async for chunk in response.aiter_raw():
        for frame in splitter.feed(chunk):
            yield frame.json()["line"] if frame.event == "log" else frame.event


async def test_a_log_is_followed_until_the_hive_goes(hive: LiveHive) -> None:
    log = hive.home / "logs" / "own.log"
    log.write_text("one\ntwo\nthree\n")
    async with following(hive, "file=own.log&lines=2&follow=true") as lines:
        with anyio.fail_after(_PATIENCE_S):
            assert [await anext(lines), await anext(lines)] == ["two", "three"]
            append(log, "four\n")
            assert await anext(lines) == "four"
            shutil.move(log, log.with_suffix(".1"))
            append(log, "five\n")
            assert await anext(lines) == "five"
            await hive.send("POST", "/shutdown")
            assert await anext(lines) == "end"
            assert await anext(lines) == "message"
    assert await hive.exit_code() == 0


async def test_the_hives_own_log_tells_of_its_end(hive: LiveHive) -> None:
    async with following(hive, "file=rbee-hive.log&lines=1&follow=true") as lines:
        await hive.send("POST", "/shutdown")
        with anyio.fail_after(_PATIENCE_S):
            said = [line async for line in lines]
    assert any("shutting down" in line for line in said)
    assert said[-2:] == ["end", "message"]


async def test_names_files_and_refusals(hive: LiveHive) -> None:
    (hive.home / "logs" / "own.log").write_text("one\ntwo\nthree")
    assert "own.log\n" in (await hive.send("GET", "/v1/logs")).text
    for name in ("file", "name"):
        assert (await hive.send("GET", f"/v1/logs?{name}=own.log&lines=2")).text == "two\nthree\n"
    for query, status in (
        ("file=gone.log", 404),
        ("file=gone.log&follow=true", 404),
        ("file=../token", 404),
        ("file=own.log&lines=0", 400),
        ("file=own.log&follow=perhaps", 400),
    ):
        assert (await hive.send("GET", f"/v1/logs?{query}")).status_code == status, query
    assert (await hive.send("GET", "/v1/logs?file=own.log&follow=true", token=None)).status_code == 401


async def test_readers_that_leave_leave_no_open_file(hive: LiveHive) -> None:
    (hive.home / "logs" / "own.log").write_text("one\n")
    for _ in range(10):
        async with following(hive, "file=own.log&follow=true") as lines:
            await anext(lines)
    pid = hive.process.pid

    def closed() -> bool:
        return not [each for each in open_fds(pid) if "own.log" in each]

    await anyio.to_thread.run_sync(lambda: wait_until(closed, _PATIENCE_S, "every file is closed"))

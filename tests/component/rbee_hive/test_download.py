"""Fetching a file from a Hub that does everything wrong, with kills, cancellations, full disks and races."""

import hashlib
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import anyio
import anyio.to_thread
import psutil
import pytest
from tests.support import hub as local
from tests.support.hub import Mode

from rbee_hive.domain.models.transfer import MIB, Limits, Source, Transfer
from rbee_hive.models import transfer_body
from rbee_hive.models.download import Fetched, fetch
from rbee_hive.models.partial_file import PartialFile, partial_path
from rbee_hive.models.transfer_http import download_client
from rbee_shared.errors import (
    ChecksumMismatchError,
    DiskFullError,
    DownloadFailedError,
    ForbiddenError,
    InvalidRequestError,
    ModelNotFoundError,
)  # fmt: skip

REPO = "acme/tiny-GGUF"
FILE = "tiny-Q4_K_M.gguf"
TOKEN = "hf_secretsecretsecret"
SIZE = 9 * MIB + 77
CONTENT = random.Random(1).randbytes(SIZE)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Limits(first_pause_s=0.01, disk_margin_bytes=MIB, tell_every_s=0.05)
_FETCHER = str(Path(__file__).parents[2] / "support" / "programs" / "fetcher.py")


@pytest.fixture
def hub(tmp_path: Path) -> Generator[local.Hub]:
    scratch = tmp_path / "served"
    scratch.mkdir()
    with local.running_hub(scratch) as running:
        running.add(REPO, {FILE: CONTENT})
        yield running


@pytest.fixture
async def http() -> AsyncGenerator[aiohttp.ClientSession]:
    async with download_client(QUICK) as session:
        yield session


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / FILE


@pytest.fixture
def told() -> list[Transfer]:
    return []


class Fetcher:
    """`fetch` of that file, with what a test does not care about filled in."""

    def __init__(self, hub: local.Hub, http: aiohttp.ClientSession, target: Path, told: list[Transfer]) -> None:
        self.source = Source(hub.file_url(REPO, FILE), SHA256, SIZE)
        self.http = http
        self.target = target
        self.told = told

    @property
    def partial(self) -> Path:
        return partial_path(self.target, self.source)

    async def __call__(self, source: Source | None = None, limits: Limits = QUICK) -> Fetched:
        with anyio.fail_after(60):
            return await fetch(source or self.source, self.target, http=self.http, tell=self.told.append, limits=limits)

    def lies_there(self) -> bool:
        return self.target.read_bytes() == CONTENT and not self.partial.exists()

    def begin_with(self, content: bytes) -> None:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.partial.write_bytes(content)


@pytest.fixture
def fetcher(hub: local.Hub, http: aiohttp.ClientSession, target: Path, told: list[Transfer]) -> Fetcher:
    return Fetcher(hub, http, target, told)


async def test_a_file_is_fetched_checked_and_named(hub: local.Hub, fetcher: Fetcher) -> None:
    fetched = await fetcher()

    assert fetcher.lies_there()
    assert (fetched.sha256, fetched.size_bytes) == (SHA256, SIZE)
    assert (fetched.bytes_fetched, fetched.bytes_kept) == (SIZE, 0)
    assert fetcher.target.stat().st_mode & 0o077 == 0
    assert fetcher.told[-1].done_bytes == fetcher.told[-1].total_bytes == SIZE
    assert len(hub.requests("cdn")) == 1


async def test_what_is_there_is_not_fetched_again_and_what_is_wrong_there_is_replaced(
    hub: local.Hub, fetcher: Fetcher
) -> None:
    await fetcher()
    again = await fetcher()
    assert (again.bytes_fetched, again.bytes_kept) == (0, SIZE)
    assert len(hub.requests("cdn")) == 1

    fetcher.target.write_bytes(bytes(SIZE))
    assert (await fetcher()).bytes_fetched == SIZE
    assert fetcher.lies_there()


async def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(hub: local.Hub, fetcher: Fetcher) -> None:
    hub.tokens.add(TOKEN)
    await fetcher(Source(fetcher.source.url, SHA256, SIZE, {"Authorization": f"Bearer {TOKEN}"}))

    assert {seen.authorization for seen in hub.requests("resolve")} == {f"Bearer {TOKEN}"}
    assert {seen.authorization for seen in hub.requests("cdn")} == {None}


async def test_a_signed_address_is_followed_as_it_is_written(hub: local.Hub, fetcher: Fetcher) -> None:
    name = "it's (a) ~test+100%.gguf"  # a signature covers each %27 and %28, which a client might write plainly
    hub.add("acme/odd-GGUF", {name: CONTENT})
    await fetcher(Source(hub.file_url("acme/odd-GGUF", name), SHA256, SIZE))
    assert fetcher.lies_there()


async def test_a_fresh_download_checks_nothing_first(fetcher: Fetcher) -> None:
    await fetcher()
    assert {transfer.doing for transfer in fetcher.told} == {"fetching"}


async def test_bytes_of_an_earlier_process_are_gone_on_with(hub: local.Hub, fetcher: Fetcher) -> None:
    fetcher.begin_with(CONTENT[: 5 * MIB])
    fetched = await fetcher()

    assert fetcher.lies_there()
    assert (fetched.bytes_kept, fetched.bytes_fetched) == (5 * MIB, SIZE - 5 * MIB)
    assert hub.sent_bytes() == SIZE - 5 * MIB
    assert "checking" in {transfer.doing for transfer in fetcher.told}


async def test_a_whole_partial_file_needs_no_server(hub: local.Hub, fetcher: Fetcher) -> None:
    fetcher.begin_with(CONTENT)
    fetched = await fetcher()
    assert fetcher.lies_there()
    assert (fetched.bytes_kept, fetched.bytes_fetched) == (SIZE, 0)
    assert not hub.seen


@pytest.mark.parametrize(
    "rubbish",
    [
        pytest.param(b"\0" * MIB, id="other bytes"),
        pytest.param(bytes(SIZE), id="other bytes, all of them"),
        pytest.param(CONTENT + b"tail", id="too many"),
        pytest.param(CONTENT[: 2 * MIB] + bytes(MIB), id="a hole after a power cut"),
    ],
)
async def test_a_spoilt_partial_file_costs_one_more_try_and_no_error(fetcher: Fetcher, rubbish: bytes) -> None:
    fetcher.begin_with(rubbish)
    await fetcher()
    assert fetcher.lies_there()


async def test_a_partial_file_of_another_content_is_left_alone(fetcher: Fetcher) -> None:
    other = partial_path(fetcher.target, Source("http://h/x", "f" * 64))
    other.parent.mkdir(parents=True)
    other.write_bytes(b"another")
    await fetcher()
    assert other.read_bytes() == b"another"
    assert fetcher.lies_there()


async def test_a_link_in_the_place_of_the_partial_file_is_not_followed(fetcher: Fetcher, tmp_path: Path) -> None:
    fetcher.target.parent.mkdir()
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    fetcher.partial.symlink_to(precious)
    with pytest.raises(DownloadFailedError):
        await fetcher()
    assert precious.read_bytes() == b"mine"


_FLAWS = [
    pytest.param(Mode(after_bytes=3 * MIB, after="reset", times=1), id="reset"),
    pytest.param(Mode(after_bytes=3 * MIB, after="close", times=1), id="closed early"),
    pytest.param(Mode(after_bytes=2 * MIB, after="reset", times=4), id="reset at every 2 MiB"),
    pytest.param(Mode(after_bytes=0, after="reset", times=5), id="reset at once, five times"),
    pytest.param(Mode(after_bytes=0, after="close", times=5), id="closed at once, five times"),
    pytest.param(Mode(status=500, times=5), id="500 five times"),
    pytest.param(Mode(status=503, times=3, at="resolve"), id="the Hub itself broken"),
    pytest.param(Mode(status=403, times=1), id="a signed address that ran out"),
    pytest.param(Mode(status=429, retry_after="0", times=3, at="resolve"), id="too many requests"),
    pytest.param(Mode(after_bytes=2 * MIB, etag='"other"', times=1), id="the etag changes between two tries"),
    pytest.param(Mode(ranges=False, after_bytes=4 * MIB, times=1), id="no ranges, broken once"),
    pytest.param(Mode(length_off_by=9, times=1), id="Content-Length too long"),
    pytest.param(Mode(length_off_by=-9, times=1), id="Content-Length too short"),
    pytest.param(Mode(plain_body=b"<html>hotel</html>", times=2), id="a captive portal"),
    pytest.param(Mode(plain_body=b"<html>hotel</html>", times=2, at="resolve"), id="a captive portal before the Hub"),
    pytest.param(Mode(status=302, location="http://127.0.0.1:1/x", times=1, at="resolve"), id="a redirect to nowhere"),
    pytest.param(Mode(status=304, times=2), id="not modified"),
    pytest.param(Mode(status=416, times=1, skip=0), id="416 for the whole"),
]  # fmt: skip


@pytest.mark.parametrize("flaw", _FLAWS)
async def test_what_goes_wrong_for_a_while_ends_well(hub: local.Hub, fetcher: Fetcher, flaw: Mode) -> None:
    hub.script.add(FILE, flaw)
    fetched = await fetcher()

    assert fetcher.lies_there()
    assert fetched.sha256 == SHA256


async def test_bytes_are_not_fetched_twice_after_resets(hub: local.Hub, fetcher: Fetcher) -> None:
    hub.script.add(FILE, Mode(reset_per_mib=0.3))
    fetched = await fetcher()

    assert fetcher.lies_there()
    assert fetched.bytes_fetched <= 1.05 * SIZE
    assert len(hub.requests("cdn")) > 1


async def test_etags_and_ranges_are_used_as_the_protocol_means_them(hub: local.Hub, fetcher: Fetcher) -> None:
    hub.script.add(FILE, Mode(after_bytes=3 * MIB, after="close", times=1))
    await fetcher()
    ranges = [seen.range for seen in hub.requests("cdn")]
    assert ranges == [None, f"bytes={3 * MIB}-"]
    assert [seen.status for seen in hub.requests("cdn")] == [200, 206]


async def test_a_server_without_ranges_that_breaks_every_time_is_given_up(hub: local.Hub, fetcher: Fetcher) -> None:
    hub.script.add(FILE, Mode(ranges=False, after_bytes=5 * MIB))
    with pytest.raises(DownloadFailedError):
        await fetcher()
    assert len(hub.requests("cdn")) <= QUICK.tries + 1
    assert not fetcher.target.exists()


@pytest.mark.parametrize(
    ("flaw", "error"),
    [
        pytest.param(Mode(status=404, at="resolve"), ModelNotFoundError, id="404"),
        pytest.param(Mode(status=401, error_code="GatedRepo", at="resolve"), ForbiddenError, id="401"),
        pytest.param(Mode(status=403, error_code="GatedRepo", at="resolve"), ForbiddenError, id="403"),
        pytest.param(Mode(status=403), ForbiddenError, id="403 from the CDN for good"),
        pytest.param(Mode(status=400, at="resolve"), DownloadFailedError, id="400"),
        pytest.param(Mode(location="file:///etc/passwd", at="resolve"), DownloadFailedError, id="to a file"),
        pytest.param(Mode(location="gopher://h/x", at="resolve"), DownloadFailedError, id="to another protocol"),
        pytest.param(Mode(location="http://[::1", at="resolve"), DownloadFailedError, id="to nonsense"),
        pytest.param(Mode(location=f"/{REPO}/resolve/main/{FILE}", at="resolve"), DownloadFailedError, id="in a loop"),
    ],
)  # fmt: skip
async def test_what_will_not_get_better_is_not_tried_again(
    hub: local.Hub, fetcher: Fetcher, flaw: Mode, error: type[Exception]
) -> None:
    hub.script.add(FILE, flaw)
    with pytest.raises(error):
        await fetcher()
    assert len(hub.seen) <= QUICK.redirects + 1
    assert not fetcher.target.exists()


async def test_a_gated_file_says_what_to_do(hub: local.Hub, fetcher: Fetcher) -> None:
    hub.repos[REPO].gated = "manual"
    with pytest.raises(ForbiddenError, match="restricted") as refusal:
        await fetcher(Source(fetcher.source.url, SHA256, SIZE, refused_hint="accept the licence"))
    assert refusal.value.hint == "accept the licence"


@pytest.mark.parametrize("flaw", [Mode(status=503), Mode(after_bytes=0, after="reset"), Mode(plain_body=b"<html>")])
async def test_six_tries_that_bring_nothing_are_the_last(hub: local.Hub, fetcher: Fetcher, flaw: Mode) -> None:
    fetcher.begin_with(CONTENT[:MIB])
    hub.script.add(FILE, flaw)
    with pytest.raises(DownloadFailedError, match="6 tries"):
        await fetcher()

    assert len(hub.requests("cdn")) == 6
    assert fetcher.partial.read_bytes() == CONTENT[:MIB]


async def test_wrong_bytes_of_the_right_size_never_get_the_name(hub: local.Hub, fetcher: Fetcher) -> None:
    hub.script.add(FILE, Mode(corrupt_at=SIZE - 5))
    with pytest.raises(ChecksumMismatchError, match="SHA-256"):
        await fetcher()

    assert not fetcher.target.exists()
    assert not fetcher.partial.exists()
    assert len(hub.requests("cdn")) == 1


async def test_wrong_bytes_after_a_resume_are_fetched_once_more_and_then_refused(
    hub: local.Hub, fetcher: Fetcher
) -> None:
    hub.script.add(FILE, Mode(corrupt_at=7, after_bytes=MIB, times=1))
    await fetcher()
    assert fetcher.lies_there()

    fetcher.target.unlink()
    hub.script.add(FILE, Mode(corrupt_at=7))
    fetcher.begin_with(CONTENT[:MIB][::-1])
    with pytest.raises(ChecksumMismatchError):
        await fetcher()
    assert not fetcher.partial.exists()


async def test_a_retry_after_is_waited_for_and_told(hub: local.Hub, fetcher: Fetcher) -> None:
    hub.script.add(FILE, Mode(status=429, retry_after="1", times=1))
    fetched = await fetcher()

    assert fetched.elapsed_s > 0.9
    waiting = [transfer for transfer in fetcher.told if transfer.doing == "waiting"]
    assert len(waiting) > 3
    assert "429" in waiting[0].note


@pytest.mark.parametrize(
    "flaw",
    [
        pytest.param(Mode(after_bytes=2 * MIB, after="stall", times=1), id="a stall"),
        pytest.param(Mode(bytes_per_s=2000, times=1), id="a trickle"),
        pytest.param(Mode(headers_after_s=30, times=1), id="no head"),
        pytest.param(Mode(headers_after_s=30, times=1, at="resolve"), id="no head from the Hub"),
    ],
)
async def test_a_connection_that_brings_nothing_is_given_up(hub: local.Hub, fetcher: Fetcher, flaw: Mode) -> None:
    hub.script.add(FILE, flaw)
    limits = Limits(first_pause_s=0.01, stall_s=0.6, slow_window_s=0.8, disk_margin_bytes=MIB, tell_every_s=0.05)
    fetched = await fetcher(limits=limits)

    assert fetcher.lies_there()
    assert fetched.bytes_fetched < SIZE + MIB


async def test_progress_is_told_often_with_rate_and_rest(hub: local.Hub, fetcher: Fetcher) -> None:
    hub.script.add(FILE, Mode(bytes_per_s=5 * MIB))
    await fetcher(limits=Limits(disk_margin_bytes=MIB))

    fetching = [transfer for transfer in fetcher.told if transfer.doing == "fetching"]
    assert len(fetching) >= 4
    assert [transfer.done_bytes for transfer in fetching] == sorted(transfer.done_bytes for transfer in fetching)
    middle = fetching[len(fetching) // 2]
    assert middle.total_bytes == SIZE
    assert middle.per_s
    assert middle.eta_s


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.1, 0.3])
async def test_who_cancels_keeps_the_bytes_and_leaves_nothing_open(
    hub: local.Hub, fetcher: Fetcher, after_s: float
) -> None:
    hub.script.add(FILE, Mode(bytes_per_s=10 * MIB, times=1))
    process, threads = psutil.Process(), threading.active_count()
    before = process.num_fds()
    with anyio.move_on_after(after_s) as scope:
        await fetcher()
    assert scope.cancelled_caught
    await anyio.sleep(0.1)

    assert process.num_fds() <= before + 3  # the test's server still closes its end
    assert threading.active_count() <= threads + 3
    kept_bytes = fetcher.partial.stat().st_size if fetcher.partial.exists() else 0
    assert fetcher.partial.exists() is False or fetcher.partial.read_bytes() == CONTENT[:kept_bytes]
    assert (await fetcher()).bytes_kept == kept_bytes
    assert fetcher.lies_there()


@pytest.mark.parametrize("sent_bytes", [100_000, 3 * MIB, 9 * MIB])
async def test_what_had_come_before_a_cancellation_is_written(
    hub: local.Hub, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, sent_bytes: int
) -> None:
    monkeypatch.setattr(transfer_body, "_FLUSH_S", 60.0)  # so that nothing is written because time has passed
    hub.script.add(FILE, Mode(after_bytes=sent_bytes, after="stall", times=1))
    async with anyio.create_task_group() as group:
        group.start_soon(fetcher)
        with anyio.fail_after(30):
            while not fetcher.told or fetcher.told[-1].done_bytes < sent_bytes:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()

    assert fetcher.partial.read_bytes() == CONTENT[:sent_bytes]
    monkeypatch.undo()
    assert (await fetcher()).bytes_kept == sent_bytes
    assert fetcher.lies_there()


async def test_a_cancellation_while_the_disk_is_behind_loses_and_doubles_nothing(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = PartialFile.append

    def slowly(self: PartialFile, pieces: Iterable[bytes]) -> None:
        time.sleep(0.2)
        append(self, pieces)

    monkeypatch.setattr(PartialFile, "append", slowly)
    async with anyio.create_task_group() as group:
        group.start_soon(fetcher)
        with anyio.fail_after(30):
            while not fetcher.told or fetcher.told[-1].done_bytes < 5 * MIB:  # noqa: ASYNC110
                await anyio.sleep(0.001)
        seen_bytes = fetcher.told[-1].done_bytes
        group.cancel_scope.cancel()

    kept = fetcher.partial.read_bytes()
    assert len(kept) >= seen_bytes
    assert kept == CONTENT[: len(kept)]


async def test_many_cancellations_leak_no_descriptor(hub: local.Hub, fetcher: Fetcher) -> None:
    hub.script.add(FILE, Mode(bytes_per_s=MIB))
    ours = [f for f in psutil.Process().open_files() if f.path.startswith(str(fetcher.target.parent))]
    for number in range(60):
        with anyio.move_on_after(number / 1000):
            await fetcher()
    assert [f for f in psutil.Process().open_files() if f.path.startswith(str(fetcher.target.parent))] == ours
    assert not [
        c for c in psutil.Process().net_connections() if c.status == "CLOSE_WAIT" and c.raddr.port == _port(hub)
    ]


def _port(hub: local.Hub) -> int:
    return int(hub.cdn_url.rpartition(":")[2])


async def test_a_kill_costs_next_to_nothing(hub: local.Hub, fetcher: Fetcher) -> None:
    hub.script.add(FILE, Mode(bytes_per_s=20 * MIB, times=1))
    with _fetching_process(fetcher) as process:
        with anyio.fail_after(30):
            while _size(fetcher.partial) < 4 * MIB:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        await anyio.to_thread.run_sync(process.wait)
    await anyio.sleep(0.2)
    arrived_bytes, kept_bytes = hub.sent_bytes(), _size(fetcher.partial)
    fetched = await fetcher()

    assert fetcher.lies_there()
    assert fetched.bytes_kept == kept_bytes
    assert fetched.bytes_fetched == SIZE - kept_bytes
    # what the kernel's buffers held on the way was sent, and never ours
    assert kept_bytes >= 0.95 * (arrived_bytes - 3 * MIB)


async def test_two_processes_fetch_it_once(hub: local.Hub, fetcher: Fetcher) -> None:
    hub.script.add(FILE, Mode(bytes_per_s=15 * MIB, times=1))
    with _fetching_process(fetcher) as process:
        with anyio.fail_after(30):
            while not _size(fetcher.partial):  # noqa: ASYNC110
                await anyio.sleep(0.01)
        fetched = await fetcher()
        assert await anyio.to_thread.run_sync(process.wait) == 0

    assert fetched.bytes_fetched == 0
    assert fetcher.lies_there()
    assert len(hub.requests("cdn")) == 1
    waiting = [transfer for transfer in fetcher.told if transfer.doing == "waiting"]
    assert waiting[0].note
    assert waiting[-1].done_bytes > 0


async def test_the_second_process_takes_over_from_a_dead_first(hub: local.Hub, fetcher: Fetcher) -> None:
    hub.script.add(FILE, Mode(after_bytes=5 * MIB, after="stall", times=1))
    with _fetching_process(fetcher) as process:
        async with anyio.create_task_group() as group:
            with anyio.fail_after(30):
                while _size(fetcher.partial) < 4 * MIB:  # noqa: ASYNC110
                    await anyio.sleep(0.01)
            group.start_soon(fetcher)
            await anyio.sleep(0.3)
            process.send_signal(signal.SIGKILL)
    assert fetcher.lies_there()
    assert hub.sent_bytes() < SIZE + MIB


async def test_many_callers_at_once_fetch_it_once(hub: local.Hub, fetcher: Fetcher) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(fetcher)
    assert fetcher.lies_there()
    assert len(hub.requests("cdn")) == 1


async def test_a_disk_without_room_is_refused_before_a_byte_is_asked_for(hub: local.Hub, fetcher: Fetcher) -> None:
    with pytest.raises(DiskFullError) as refusal:
        await fetcher(limits=Limits(disk_margin_bytes=1 << 60))
    assert refusal.value.details["missing_bytes"] == SIZE
    assert not hub.seen


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
async def test_a_disk_that_fills_up_keeps_what_it_has(hub: local.Hub, fetcher: Fetcher, tmp_path: Path) -> None:
    fetcher.target.parent.mkdir()
    with _small_disk(fetcher.target.parent, 8 * MIB):
        with pytest.raises(DiskFullError):
            await fetcher(Source(fetcher.source.url, SHA256))  # its size is known from the answer's head
        assert _size(fetcher.partial) == 0
        unbounded = Limits(disk_margin_bytes=-SIZE)  # nobody looks: the kernel says it
        with pytest.raises(DiskFullError):
            await fetcher(limits=unbounded)
        kept_bytes = _size(fetcher.partial)
        assert kept_bytes > 6 * MIB
        assert fetcher.partial.read_bytes() == CONTENT[:kept_bytes]


async def test_a_directory_that_cannot_be_written_is_said(hub: local.Hub, fetcher: Fetcher) -> None:
    fetcher.target.parent.write_text("a file where a directory should be")
    with pytest.raises(DownloadFailedError, match="models"):
        await fetcher()


async def test_without_a_size_it_is_learned(hub: local.Hub, fetcher: Fetcher) -> None:
    hub.script.add(FILE, Mode(after_bytes=4 * MIB, times=2))
    fetched = await fetcher(Source(fetcher.source.url, SHA256))
    assert fetched.size_bytes == SIZE
    assert fetcher.lies_there()

    fetcher.target.unlink()
    fetcher.begin_with(CONTENT)
    assert (await fetcher(Source(fetcher.source.url, SHA256))).bytes_fetched == 0  # a 416 says that this was all
    assert fetcher.lies_there()


async def test_a_file_in_git_itself_is_checked_by_its_object_id(hub: local.Hub, fetcher: Fetcher) -> None:
    repo = hub.add("acme/small-GGUF", {FILE: CONTENT}, lfs=False)
    oid, url = repo.files[FILE].git_oid, hub.file_url("acme/small-GGUF", FILE)
    assert (await fetcher(Source(url, None, SIZE, git_oid=oid))).sha256 == SHA256
    fetcher.target.unlink()
    with pytest.raises(ChecksumMismatchError, match="git"):
        await fetcher(Source(url, None, SIZE, git_oid="0" * 40))
    for unchecked in (Source(url, None, SIZE), Source(url, None, None, git_oid=oid)):
        with pytest.raises(InvalidRequestError):
            await fetcher(unchecked)


async def test_an_empty_file_is_a_file(hub: local.Hub, fetcher: Fetcher) -> None:
    hub.add("acme/empty", {"empty.gguf": b""})
    await fetcher(Source(hub.file_url("acme/empty", "empty.gguf"), hashlib.sha256().hexdigest(), 0))
    assert fetcher.target.read_bytes() == b""


@pytest.mark.parametrize("url", ["ftp://h/x", "file:///etc/passwd", "", "nonsense", "http://", "http://[::1"])
async def test_an_address_that_is_none_is_refused(fetcher: Fetcher, url: str) -> None:
    with pytest.raises(DownloadFailedError):
        await fetcher(Source(url, SHA256))


async def test_secrets_stay_out_of_errors_and_logs(
    hub: local.Hub, fetcher: Fetcher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.script.add(FILE, Mode(status=503))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    hub.tokens.add(TOKEN)
    with pytest.raises(DownloadFailedError) as refusal:
        await fetcher(Source(fetcher.source.url.replace("//", "//user:topsecret@"), SHA256, SIZE, headers))
    heard = f"{refusal.value.body()}{caplog.text}{fetcher.told}"
    assert not [secret for secret in (TOKEN, "topsecret", "Signature=") if secret in heard]


async def test_a_proxy_is_used_and_never_for_loopback(
    hub: local.Hub, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    await fetcher()
    assert fetcher.lies_there()

    fetcher.target.unlink()
    monkeypatch.setenv("http_proxy", hub.url)  # a server like any other: it is asked for the whole address
    with pytest.raises(ModelNotFoundError, match=r"models\.example\.org"):
        await fetcher(Source("http://models.example.org/x.gguf", SHA256))
    assert hub.seen[-1].host == "models.example.org"


async def test_the_event_loop_stays_free_meanwhile(fetcher: Fetcher) -> None:
    worst_s = 0.0

    async def beat() -> None:
        nonlocal worst_s
        while True:
            began_s = anyio.current_time()
            await anyio.sleep(0.01)
            worst_s = max(worst_s, anyio.current_time() - began_s)

    async with anyio.create_task_group() as group:
        group.start_soon(beat)
        await fetcher()
        group.cancel_scope.cancel()
    assert worst_s < 2.0  # a hang, not a speed: heartbeats go every 2 s


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@contextmanager
def _fetching_process(fetcher: Fetcher) -> Iterator["subprocess.Popen[bytes]"]:
    argv = [sys.executable, _FETCHER, fetcher.source.url, SHA256, str(SIZE), str(fetcher.target)]
    process = subprocess.Popen(argv)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def _small_disk(directory: Path, size_bytes: int) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(directory)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this root may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)

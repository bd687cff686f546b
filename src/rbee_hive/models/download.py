"""Fetches one file over HTTP: every byte is kept, none is believed.

What was fetched survives a kill of this process and is gone on with; the file has its name only after its hash matched.
A connection that breaks, stalls or trickles is given up for another, as long as the tries bring something new. Only
one process at a time fetches a file, the others wait for it. Whoever cancels finds the bytes kept the next time.
"""

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import aiohttp
import anyio
import anyio.to_thread
from yarl import URL

from rbee_hive.domain.models.transfer import Limits, Source, Transfer, Tries, require_space
from rbee_hive.domain.models.transfer_answer import Asked, Complete, Follow, Refused, Take, TryAgain, judge
from rbee_hive.models.partial_file import Digest, PartialFile, hash_more, partial_path
from rbee_hive.models.transfer_body import BodyReader
from rbee_hive.models.transfer_http import NETWORK_ERRORS, answered, first_address, head_of, next_address, shown, why
from rbee_hive.models.transfer_watch import Tell, Watch
from rbee_shared.errors import ChecksumMismatchError, DownloadFailedError, InvalidRequestError, RbeeError
from rbee_shared.units import format_seconds

_LOG = logging.getLogger("rbee.hive.download")


@dataclass(frozen=True)
class Fetched:
    """What became of it. `bytes_kept` lay there already, `bytes_fetched` came over the network, some maybe twice."""

    size_bytes: int
    sha256: str
    bytes_kept: int
    bytes_fetched: int
    elapsed_s: float


async def fetch(
    source: Source, target: Path, *, http: aiohttp.ClientSession, tell: Tell, limits: Limits | None = None
) -> Fetched:
    """Have `source` at `target`. `tell` hears how far it is, several times a second, from the event loop.

    Raises:
        ChecksumMismatchError: what the server has is another file; nothing of it is kept.
        DownloadFailedError: the network, the server or the disk failed too often; what was fetched is kept.
        DiskFullError: there is no room, found out before or while it is fetched; what was fetched is kept.
        ForbiddenError, ModelNotFoundError: the server does not give it to us, or does not have it.
    """
    _require_checkable(source)
    limits = limits or Limits()
    async with _locked(source, target, tell, limits) as partial:
        watch = Watch(tell, limits, source.size_bytes)
        failure: RbeeError | None = None
        fetched: Fetched | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(watch.run)
            try:
                fetched = await _Download(source, partial, http, watch, limits).run()
            except RbeeError as error:
                failure = error  # raised behind the group, which would wrap it
            group.cancel_scope.cancel()
        watch.look()
        if failure is not None:
            raise failure
        assert fetched is not None
        return fetched


def _require_checkable(source: Source) -> None:
    if source.sha256 is None and (source.git_oid is None or source.size_bytes is None):
        raise InvalidRequestError(
            f"{shown(first_address(source))} cannot be checked: its SHA-256 is not known",
            hint="Give the SHA-256 of the file.",
        )


@asynccontextmanager
async def _locked(source: Source, target: Path, tell: Tell, limits: Limits) -> AsyncGenerator[PartialFile]:
    """The partial file, as soon as nobody else has it."""
    while (partial := await anyio.to_thread.run_sync(PartialFile.try_lock, target, source)) is None:
        done_bytes = await anyio.to_thread.run_sync(_size_bytes, partial_path(target, source))
        tell(Transfer("waiting", done_bytes, source.size_bytes, note="another process fetches it already"))
        await anyio.sleep(limits.tell_every_s)
    try:
        yield partial
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(partial.close)


class _Download:
    """One call of `fetch`, with the partial file locked. `_spliced`: its bytes do not all come from one answer."""

    def __init__(
        self, source: Source, partial: PartialFile, http: aiohttp.ClientSession, watch: Watch, limits: Limits
    ) -> None:
        self._source = source
        self._partial = partial
        self._http = http
        self._watch = watch
        self._limits = limits
        self._reader = BodyReader(partial, watch, limits)
        self._began_s = anyio.current_time()
        self._etag: str | None = None
        self._expired = False
        self._spliced = False
        self._ended = False

    async def run(self) -> Fetched:
        """Check what is there, fetch the rest, give it its name."""
        there = Digest(self._source)
        if await self._matches(self._partial.target, there):
            await anyio.to_thread.run_sync(self._partial.discard)
            return self._fetched(there, there.done_bytes)
        kept_bytes = await self._take_up()
        await self._complete()
        return self._fetched(self._partial.digest, kept_bytes)

    async def _matches(self, target: Path, digest: Digest) -> bool:
        """Whether the target is there, and is what was promised."""
        size_bytes = await anyio.to_thread.run_sync(_size_bytes, target)
        if size_bytes == 0 or self._source.size_bytes not in {None, size_bytes}:
            return False
        await self._hash(target, digest)
        return digest.problem is None

    async def _take_up(self) -> int:
        """Hash what an earlier process left; how many bytes of it are good to go on with."""
        size_bytes = await anyio.to_thread.run_sync(_size_bytes, self._partial.path)
        if self._source.size_bytes is not None and size_bytes > self._source.size_bytes:
            await self._begin_anew()
        elif size_bytes > 0:
            await self._hash(self._partial.path, self._partial.digest)
        self._spliced = self._partial.done_bytes > 0
        return self._partial.done_bytes

    async def _hash(self, path: Path, digest: Digest) -> None:
        self._watch.now("checking", 0)
        while await anyio.to_thread.run_sync(hash_more, path, digest):
            self._watch.done_bytes = digest.done_bytes

    async def _complete(self) -> None:
        """Fetch until it is what was promised; a file of several pieces gets a second chance, from zero."""
        for is_last in (False, True):
            await self._fetch_rest()
            try:
                await anyio.to_thread.run_sync(self._partial.finish)
            except ChecksumMismatchError as error:
                if is_last or not self._spliced:
                    await anyio.to_thread.run_sync(self._partial.discard)
                    raise
                _LOG.warning("%s; it is fetched once more, from its beginning", error)
                await self._begin_anew()
            else:
                return

    async def _begin_anew(self) -> None:
        await anyio.to_thread.run_sync(self._partial.cut_to_zero)
        self._etag, self._spliced, self._ended = None, False, False

    async def _fetch_rest(self) -> None:
        """Try until every byte is there, or the tries bring nothing new any more."""
        tries = Tries(reached_bytes=self._partial.done_bytes)
        self._require_space()
        while not self._is_complete:
            self._watch.now("fetching", self._partial.done_bytes)
            if (broke := await self._try()) is None:
                continue
            if broke.from_zero:
                await self._begin_anew()
            tries = tries.after_failure(self._partial.done_bytes, self._limits)
            if (pause_s := tries.pause_s(self._limits, broke.after_s)) is None:
                raise DownloadFailedError(f"{broke.reason}; {self._limits.tries} tries brought nothing new")
            _LOG.info("%s; trying again in %s", broke.reason, format_seconds(pause_s))
            self._watch.now("waiting", self._partial.done_bytes, broke.reason)
            await anyio.sleep(pause_s)

    @property
    def _is_complete(self) -> bool:
        return self._ended or self._partial.done_bytes == self._watch.total_bytes

    async def _try(self) -> TryAgain | None:
        """Ask once, redirects followed. Why it did not bring the rest; None if it did."""
        url = first_address(self._source)
        for hops in range(self._limits.redirects + 1):
            try:
                async with answered(
                    self._http, self._source, url, self._partial.done_bytes, self._etag, self._watch
                ) as response:
                    answer = judge(head_of(response), self._asked(url, redirected=hops > 0), now_unix=time.time())
                    if not isinstance(answer, Follow):
                        return await self._act(answer, response.content)
            except NETWORK_ERRORS as error:
                return TryAgain(f"{shown(url)}: {why(error)}")
            url = next_address(url, answer.location)
        raise DownloadFailedError(f"{self._shown_source} redirects more than {self._limits.redirects} times")

    def _asked(self, url: URL, *, redirected: bool) -> Asked:
        return Asked(
            shown_url=shown(url),
            from_bytes=self._partial.done_bytes,
            size_bytes=self._source.size_bytes,
            etag=self._etag,
            redirected=redirected,
            expired_before=self._expired,
            refused_hint=self._source.refused_hint,
        )

    async def _act(
        self, answer: Take | TryAgain | Complete | Refused, content: aiohttp.StreamReader
    ) -> TryAgain | None:
        match answer:
            case Take():
                self._expired = False
                return await self._take(answer, content)
            case TryAgain():
                self._expired = answer.expired
                return answer
            case Complete():
                self._ended = True
                return None
            case Refused():
                raise answer.error
            case _:
                assert_never(answer)

    async def _take(self, answer: Take, content: aiohttp.StreamReader) -> TryAgain | None:
        if answer.start_bytes != self._partial.done_bytes:
            await self._begin_anew()
        self._spliced = self._spliced or answer.start_bytes > 0
        self._etag = answer.etag
        self._watch.total_bytes = answer.size_bytes
        self._watch.now("fetching", answer.start_bytes)
        self._require_space()
        if broke := await self._reader.take(content, answer.size_bytes):
            return TryAgain(f"{self._shown_source}: {broke}")
        if answer.size_bytes is not None and self._partial.done_bytes < answer.size_bytes:
            return TryAgain(
                f"{self._shown_source}: the body ended {answer.size_bytes - self._partial.done_bytes} bytes early"
            )
        self._ended = True
        return None

    def _require_space(self) -> None:
        missing_bytes = (self._watch.total_bytes or 0) - self._partial.done_bytes
        require_space(missing_bytes, self._partial.free_bytes, self._limits, where=str(self._partial.target.parent))

    def _fetched(self, digest: Digest, kept_bytes: int) -> Fetched:
        elapsed_s = anyio.current_time() - self._began_s
        return Fetched(digest.done_bytes, digest.sha256, kept_bytes, self._reader.received_bytes, elapsed_s)

    @property
    def _shown_source(self) -> str:
        return shown(first_address(self._source))


def _size_bytes(path: Path) -> int:
    """0 if there is no such file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

"""Has a worker build of a kind: the one that is there, the hive's own environment, or one that is made now.

Guarantees: one build of a kind is made at a time in a home, whoever asks; who waited for it takes what was made. What
is offered was loaded once, and its backend was seen in it.
"""

import os
import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread

from rbee_hive.builds import files as build_files
from rbee_hive.builds.catalog import WorkerCatalog
from rbee_hive.builds.workshop import Workshop, progress_event
from rbee_hive.domain.builds.build_plan import KINDS, build_id, builtin_id, require_kind
from rbee_hive.domain.builds.probe_report import ProbeFailure, ProbeReport
from rbee_shared.contracts.progress import ProgressEvent
from rbee_shared.contracts.provisions import BuildKind, BuildRow
from rbee_shared.errors import BuildFailedError, DiskFullError, ForbiddenError, InvalidRequestError
from rbee_shared.file_lock import try_lock
from rbee_shared.narration import Narrator
from rbee_shared.units import format_bytes, format_seconds

_LOCK_POLL_S = 0.5
_PRIVATE_DIR = 0o700


class WorkerBuilder:
    """The worker builds of this node."""

    def __init__(
        self,
        catalog: WorkerCatalog,
        shop: Workshop,
        narrator: Narrator,
        *,
        in_use: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """For one home.

        `narrator`: tells what concerns no single request, such as an environment whose engine does not load. `in_use`:
        the paths of the builds that workers run now; those are neither replaced nor removed.
        """
        self._catalog = catalog
        self._shop = shop
        self._narrator = narrator
        self._in_use = in_use
        self._looking = anyio.Lock()
        self._unloadable: str | None = None

    async def rows(self) -> tuple[BuildRow, ...]:
        """Every build, outdated ones too."""
        await self._look_at_environment()
        return await self._catalog.rows()

    async def find(self, kind: str) -> BuildRow | None:
        """The build that a worker of that kind is to run; None when it has yet to be made, or looked for by `provide`.

        Answers at once. An environment that was not probed yet is taken at its word for the processor, which every
        engine has; whether it serves anything else is not known before.

        Raises:
            InvalidRequestError: there is no such kind.
        """
        known, target = require_kind(kind), self._shop.target
        row = await self._catalog.for_kind(known, target)
        if (row is not None and row.source != "environment") or await self._is_probed():
            return row
        if known == "cpu":
            return await anyio.to_thread.run_sync(build_files.unproven_environment, target)
        return None

    async def provide(
        self, kind: str, narrator: Narrator, progress: Callable[[ProgressEvent], None], *, rebuild: bool = False
    ) -> BuildRow:
        """A build of that kind, made if need be; `rebuild` makes it anew. Cancelling this ends the compiler.

        Raises:
            InvalidRequestError: there is no such kind.
            ForbiddenError: a worker runs the one that was to be made anew.
            BuildFailedError: it cannot be made here; says why, and where the log is.
            DiskFullError: there is no room for it.
        """
        known = require_kind(kind)
        if rebuild:
            self._require_unused(self._path_of(known))
        elif (row := await self._there(known, narrator)) is not None:
            narrator.tell("build_there", f"a {known} worker build is there: {_described(row)}", cute="🔧", build=row.id)
            return row
        limit_s = self._shop.clocks.build_s
        with anyio.move_on_after(limit_s) as patience:
            return await self._make(known, narrator, progress, not_before=time.time() if rebuild else None)
        assert patience.cancelled_caught
        raise BuildFailedError(
            f"the {known} worker build was not done within {limit_s:.0f} s, so it was ended",
            hint="Give it more time: `build_s` under [clocks] in config.toml.",
        )

    async def remove(self, row_id: str) -> BuildRow:
        """Remove a build and its files; what it was.

        Raises:
            NotFoundError: there is none of that id.
            InvalidRequestError: it is the hive's own environment.
            ForbiddenError: a worker runs it.
            BuildFailedError: its files cannot be removed.
        """
        await self._look_at_environment()
        row = await self._catalog.get(row_id)
        if row.path is None:
            raise InvalidRequestError(
                f"{row.id} is the hive's own environment, and no directory of its own",
                hint="Uninstall llama-cpp-python there: `pip uninstall llama-cpp-python`.",
            )
        self._require_unused(row.path)
        async with self._only_one(row.kind, self._narrator, lambda _: None):
            self._require_unused(row.path)  # the lock may have been waited for
            await anyio.to_thread.run_sync(build_files.remove, self._shop.home.workers, row)
            await self._catalog.remove(row.id)
        return row

    async def _make(
        self,
        kind: BuildKind,
        narrator: Narrator,
        progress: Callable[[ProgressEvent], None],
        *,
        not_before: float | None,
    ) -> BuildRow:
        async with self._only_one(kind, narrator, progress) as held:
            row = await self._made_meanwhile(kind, not_before)
            if row is None:
                began_s = anyio.current_time()
                version = self._shop.lock.version
                narrator.tell("build", f"making a {kind} worker build (llama-cpp-python {version})", cute="🏗️")
                from rbee_hive.builds.making import Making  # noqa: PLC0415 - most hives make none: a start saves it

                making = Making(self._shop, kind, held, narrator, progress)
                row = await making.run(lambda: self._require_unused(self._path_of(kind)))
                took = format_seconds(anyio.current_time() - began_s)
                await self._catalog.put(row)
                narrator.tell(
                    "built", f"{kind} worker build is ready in {took}: {_described(row)}", cute="🔧", build=row.id
                )
            return row

    async def _there(self, kind: BuildKind, narrator: Narrator) -> BuildRow | None:
        """What `find` finds, once the environment has been probed if that may matter."""
        if (row := await self.find(kind)) is not None or await self._is_probed():
            return row
        narrator.tell("look", f"looking whether the hive's own environment is a {kind} worker build", cute="🔍")
        await self._look_at_environment()
        return await self.find(kind)

    def _path_of(self, kind: BuildKind) -> str:
        return str(self._shop.home.workers / build_id(kind, self._shop.lock.version))

    def _require_unused(self, path: str) -> None:
        if path in self._in_use():
            raise ForbiddenError(
                f"a worker runs the build in {path}", hint="Stop it first: `rbee-hive worker list` shows which one."
            )

    async def _made_meanwhile(self, kind: BuildKind, not_before: float | None) -> BuildRow | None:
        """What somebody else, perhaps another hive of this home, has made while we waited for the lock."""
        for found in await anyio.to_thread.run_sync(build_files.scan, self._shop.home.workers):
            if found.kind == kind:
                await self._catalog.put(found)
        row = await self._catalog.for_kind(kind, self._shop.target)
        if row is None or not_before is None:
            return row
        return row if row.source != "environment" and row.made_at_unix >= not_before else None

    @asynccontextmanager
    async def _only_one(
        self, kind: BuildKind, narrator: Narrator, progress: Callable[[ProgressEvent], None]
    ) -> AsyncGenerator[int]:
        """Hold the lock of that kind, whose descriptor is given; waits for whoever has it, with a sign of life."""
        workers = self._shop.home.workers
        lock = workers / f"{kind}.lock"
        told = False
        try:
            await anyio.Path(workers).mkdir(mode=_PRIVATE_DIR, parents=True, exist_ok=True)
            while (descriptor := await anyio.to_thread.run_sync(try_lock, lock)) is None:
                if not told:
                    narrator.tell("wait", f"a {kind} worker build is being made already: waiting for it", cute="⏳")
                    told = True
                progress(progress_event(0))
                await anyio.sleep(_LOCK_POLL_S)
        except OSError as error:
            raise DiskFullError(f"{lock}: {error.strerror}") from None
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    async def _is_probed(self) -> bool:
        found = await anyio.to_thread.run_sync(build_files.environment_fingerprint)
        return found == self._unloadable or (found or "") == await self._catalog.environment()

    async def _look_at_environment(self) -> None:
        """Catalog the hive's own environment as a build of every backend that is in it. Costs a probe once."""
        async with self._looking:
            found = await anyio.to_thread.run_sync(build_files.environment_fingerprint)
            if found == self._unloadable or (found or "") == await self._catalog.environment():
                return
            if found is None:
                await self._catalog.put_environment("", ())
                return
            from rbee_hive.builds.probe import probe  # noqa: PLC0415 - as above
            from rbee_hive.builds.step import StepPlace  # noqa: PLC0415

            log = self._shop.home.logs / "build-probe.log"
            await anyio.to_thread.run_sync(build_files.forget_log, log)
            place = StepPlace(log, self._shop.clocks.build_silence_s)
            report = await probe(None, self._shop.environ, place)
            if isinstance(report, ProbeFailure):
                self._unloadable = found  # asked again when the hive starts anew: a driver may be there by then
                self._narrator.tell(
                    "environment", f"the hive's own llama-cpp-python cannot be used: {report.why}", level="warning"
                )
                await self._catalog.put_environment("", ())
                return
            await self._catalog.put_environment(found, self._environment_rows(report))

    def _environment_rows(self, report: ProbeReport) -> list[BuildRow]:
        now = int(time.time())
        return [
            report.as_build(builtin_id(kind), kind, "environment", made_at_unix=now)
            for kind in KINDS
            if kind in report.backends
        ]


def _described(row: BuildRow) -> str:
    where = "the hive's own environment" if row.path is None else f"{row.path} ({format_bytes(row.size_bytes)})"
    return f"llama-cpp-python {row.version} in {where}"

"""Makes one worker build: engine from a wheel or from source, what it needs beside it, proof, and a directory.

Guarantees: the directory appears under its name only after a process of its own has loaded the engine from it and found
the backend in it. A build that is killed at any moment leaves a `.partial` directory, which the next one removes.
"""

import errno
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import anyio
import anyio.to_thread

from rbee_hive.builds import files as build_files
from rbee_hive.builds import preflight as build_preflight
from rbee_hive.builds.probe import probe
from rbee_hive.builds.step import StepEnd, StepPlace, run_step
from rbee_hive.builds.workshop import Workshop, progress_event
from rbee_hive.domain.builds.build_output import Compiled, advanced, complaint, own_words, why_failed
from rbee_hive.domain.builds.build_plan import build_id, compile_environment, room_bytes, step_environment
from rbee_hive.domain.builds.build_tools import Cuda, require_pip, require_tools
from rbee_hive.domain.builds.probe_report import ProbeFailure, ProbeReport, why_refused
from rbee_shared.contracts.progress import ProgressEvent
from rbee_shared.contracts.provisions import BuildKind, BuildRow, BuildSource
from rbee_shared.errors import BuildFailedError, DiskFullError, RbeeError
from rbee_shared.narration import Narrator

_SHOWN_LINES = 12
_SIGN_OF_LIFE_S = 1.0
_DISCARD_S = 5.0
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_PIP_INSTALL = (sys.executable, "-m", "pip", "install", "--no-deps")
_PIP_WHEEL = (
    sys.executable, "-m", "pip", "wheel", "--no-cache-dir", "--no-deps", "--no-build-isolation", "--verbose",
)  # fmt: skip
"""No cache: pip's does not tell a build with CUDA from one without. No isolation: the build tools are locked too."""


class Making:
    """The making of one build, told to one narrator. Hold the kind's lock, `held`, meanwhile."""

    def __init__(
        self, shop: Workshop, kind: BuildKind, held: int, narrator: Narrator, progress: Callable[[ProgressEvent], None]
    ) -> None:
        self._shop = shop
        self._kind = kind
        self._narrator = narrator
        self._progress = progress
        self._log = shop.home.logs / f"build-{kind}.log"
        self._place = StepPlace(self._log, shop.clocks.build_silence_s, held)
        self._compiled = Compiled()
        self._shown_at_s = 0.0
        self._partial = shop.home.workers / f"{build_id(kind, shop.lock.version)}.partial"

    async def run(self, require_unused: Callable[[], None]) -> BuildRow:
        """The finished build. `require_unused` raises if a worker runs the one that it is about to replace.

        Raises:
            ForbiddenError: by `require_unused`.
            BuildFailedError: a tool is missing, a step failed or took too long, or the result is not what was wanted.
            DiskFullError: there is not enough room for it.
        """
        try:
            return await self._made(require_unused)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise DiskFullError(f"{self._shop.home.workers}: {error.strerror}") from None
            raise self._failed(f"the {self._kind} worker build failed: {error}") from None
        finally:
            with anyio.move_on_after(_DISCARD_S, shield=True):
                await anyio.to_thread.run_sync(build_files.discard, self._partial, abandon_on_cancel=True)

    async def _made(self, require_unused: Callable[[], None]) -> BuildRow:
        shop, kind = self._shop, self._kind
        wheel = await anyio.to_thread.run_sync(build_files.find_wheel, shop.wheels_dir, kind, shop.target)
        cuda = await self._compiler(wheel)
        await anyio.to_thread.run_sync(self._prepare, wheel)
        if wheel is not None:
            self._tell("wheel", f"taking the engine from {wheel}", "📦")
        await self._install(wheel or await self._compile(cuda))
        report = await self._prove()
        source: BuildSource = "compiled" if wheel is None else "wheel"
        row = report.as_build(build_id(kind, shop.lock.version), kind, source, made_at_unix=int(time.time()))
        row = await anyio.to_thread.run_sync(build_files.describe, self._partial, row)
        require_unused()
        await anyio.to_thread.run_sync(build_files.finish, self._partial, row)
        return row

    async def _compiler(self, wheel: Path | None) -> Cuda | None:
        """What can be known to be missing is found before anything is fetched. The CUDA toolkit, if there is one."""
        if wheel is not None:
            return None
        look = build_preflight.find_tools  # only looks: one that hangs may be left alone
        tools = await anyio.to_thread.run_sync(look, self._shop.environ, abandon_on_cancel=True)
        require_tools(self._kind, tools)
        return tools.cuda

    def _prepare(self, wheel: Path | None) -> None:
        """Blocks. Room, and an empty place to make it in."""
        require_pip(there=build_preflight.has_pip())
        build_files.begin(self._shop.home.workers, self._kind, self._shop.lock.version)
        needed_bytes = room_bytes(self._kind, wheel.stat().st_size if wheel else None)
        build_preflight.require_room(self._partial, needed_bytes)
        self._log.unlink(missing_ok=True)

    async def _compile(self, cuda: Cuda | None) -> Path:
        shop, kind = self._shop, self._kind
        if shop.lock.tools:
            self._tell("build_tools", "fetching the build tools", "🧰")
            await self._pip_install("fetching the build tools", "tools", shop.lock.tools)
        jobs = await anyio.to_thread.run_sync(build_preflight.jobs_here, kind) if shop.jobs is None else shop.jobs
        self._tell("compile", f"compiling llama.cpp for {kind}, jobs: {jobs}; this takes minutes, once", "🔨")
        requirement = await self._requirements("engine", shop.lock.engine)
        env = compile_environment(kind, shop.environ, jobs=jobs, tools=str(self._partial / "tools"), cuda=cuda)
        out = self._partial / "wheel"
        command = [*_PIP_WHEEL, *self._links(), "--wheel-dir", str(out), "-r", str(requirement)]
        await self._step("compiling llama.cpp", command, env)
        wheels = await anyio.to_thread.run_sync(lambda: sorted(out.glob("*.whl")))
        if len(wheels) != 1:
            raise self._failed(f"compiling left {len(wheels)} wheels, not one")
        return wheels[0]

    async def _install(self, wheel: Path) -> None:
        self._tell("install", "installing the build", "📦")
        lock = self._shop.lock
        lacking = lock.needed_beside(await anyio.to_thread.run_sync(build_files.installed_versions, lock.needs))
        if lacking:
            await self._pip_install("installing what the engine needs", "site", lacking)
        target = ["--target", str(self._partial / "site")]
        await self._step("installing the engine", [*_PIP_INSTALL, "--no-index", *target, str(wheel)], self._env())

    async def _pip_install(self, title: str, directory: str, requirements: str) -> None:
        listed = await self._requirements(directory, requirements)
        target = ["--target", str(self._partial / directory), "-r", str(listed)]
        await self._step(title, [*_PIP_INSTALL, *self._links(), *target], self._env())

    async def _prove(self) -> ProbeReport:
        """Load it as a worker will."""
        kind = self._kind
        self._tell("probe", f"checking that {kind} is really in the build", "🔍")
        report = await probe(self._partial / "site", self._shop.environ, self._place, self._hear)
        if isinstance(report, ProbeFailure):
            raise self._failed(f"the build does not load: {report.why}")
        if (why := why_refused(kind, report, self._shop.target)) is not None:
            raise self._failed(f"the build is not what was wanted: {why}")
        if not report.devices.get(kind):
            self._narrator.tell(
                "no_device", f"{kind} is in the build, and sees no device on this machine", cute="⚠️", level="warning"
            )
        return report

    async def _step(self, title: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        in_here = {**env, "TMPDIR": str(self._partial / "tmp")}
        try:
            end = await run_step(argv, in_here, self._place, self._hear)
        except BuildFailedError as error:
            raise self._failed(f"{title} failed: {error.message}", lines=error.details.get("last_lines", ())) from None
        if end.status:
            raise self._step_failed(title, end)

    def _step_failed(self, title: str, end: StepEnd) -> RbeeError:
        cause = why_failed(end.lines)
        if cause is not None and cause.is_disk:
            return DiskFullError(
                f"{title} failed: {cause.why} ({self._shop.home.root})", details=self._details(end.lines)
            )
        said = cause.why if cause is not None else complaint(end.lines)
        return self._failed(
            f"{title} failed ({end.how}): {said}", hint=cause.hint if cause is not None else None, lines=end.lines
        )

    def _failed(self, message: str, *, hint: str | None = None, lines: Sequence[str] = ()) -> BuildFailedError:
        return BuildFailedError(f"{message} (log: {self._log})", hint=hint, details=self._details(lines))

    def _details(self, lines: Sequence[str]) -> dict[str, object]:
        return {"kind": self._kind, "log": str(self._log), "last_lines": list(own_words(lines)[-_SHOWN_LINES:])}

    async def _requirements(self, name: str, text: str) -> Path:
        path = self._partial / f"{name}.lock"
        await anyio.Path(path).write_text(text, encoding="utf-8")
        return path

    def _links(self) -> list[str]:
        """A node without a network finds everything beside the engine's wheels."""
        wheels = self._shop.wheels_dir
        return ["--find-links", str(wheels)] if wheels is not None else []

    def _env(self) -> dict[str, str]:
        return step_environment(self._shop.environ)

    def _hear(self, lines: Sequence[str]) -> None:
        """Show how far the compiler is, at least once a second: also a step that says nothing is seen to go on."""
        before = self._compiled
        self._compiled = advanced(before, lines)
        now_s = anyio.current_time()
        if self._compiled.percent != before.percent or now_s - self._shown_at_s >= _SIGN_OF_LIFE_S:
            self._shown_at_s = now_s
            self._progress(progress_event(self._compiled.percent))

    def _tell(self, action: str, human: str, cute: str) -> None:
        self._narrator.tell(action, human, cute=cute, kind=self._kind)

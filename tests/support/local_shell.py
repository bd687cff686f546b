"""A login shell of this machine in the place of one behind SSH: a real one, with the noise of an rc file."""

import os
import signal
import subprocess
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import Process

from queen_rbee.ssh.finished import Finished
from rbee_shared.errors import RequestTimeoutError

NOISE = 'echo "Welcome to the machine"; printf "last login: never"'


@dataclass
class LocalShell:
    """`shell`: what the command is handed to, such as `fish -c`. `env` replaces the environment.

    `noise`: printed before and after, as an rc file and a logout file do. `hang_up_after_bytes`: the connection breaks
    when that many bytes were sent. Whatever it started is ended when `run` is left.
    """

    shell: Sequence[str] = ("/bin/sh", "-c")
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    noise: str = ""
    hang_up_after_bytes: int | None = None
    wrapped_in: Sequence[str] = ()
    grace_s: float = 20.0
    pids: list[int] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    async def run(
        self,
        command: str,
        stdin: bytes | AsyncIterable[bytes] = b"",
        *,
        timeout_s: float,
        hear: Callable[[bytes], None] | None = None,
    ) -> Finished:
        self.commands.append(command)
        argv = [*self.wrapped_in, *self.shell, f"{self.noise}\n{command}" if self.noise else command]
        async with await anyio.open_process(
            argv, env=dict(self.env), cwd="/", stderr=subprocess.PIPE, start_new_session=True
        ) as process:
            self.pids.append(process.pid)
            try:
                with anyio.fail_after(timeout_s):
                    return await self._talk(process, stdin, hear)
            except TimeoutError:
                raise RequestTimeoutError(f"no end within {timeout_s} s") from None
            finally:
                await self._leave(process)

    async def _leave(self, process: Process) -> None:
        """As a connection that ends: the pipes are closed, and who does not mind is ended only for the test's sake."""
        with anyio.CancelScope(shield=True):
            assert process.stdin is not None
            await process.stdin.aclose()
            with anyio.move_on_after(self.grace_s):
                await process.wait()
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kill -9 for what the last command started, and for nothing that that has started."""
        os.kill(self.pids[-1], signal.SIGKILL)

    async def _talk(
        self, process: Process, stdin: bytes | AsyncIterable[bytes], hear: Callable[[bytes], None] | None
    ) -> Finished:
        assert process.stdout is not None
        assert process.stderr is not None
        output, errors = bytearray(), bytearray()

        async def collect_errors() -> None:
            assert process.stderr is not None
            async for chunk in process.stderr:
                errors.extend(chunk)

        async with anyio.create_task_group() as group:
            group.start_soon(self._feed, process, stdin)
            group.start_soon(collect_errors)
            async for chunk in process.stdout:
                output.extend(chunk)
                if hear is not None:
                    hear(chunk)
        return Finished(await process.wait(), bytes(output), bytes(errors))

    async def _feed(self, process: Process, stdin: bytes | AsyncIterable[bytes]) -> None:
        assert process.stdin is not None
        left_bytes = self.hang_up_after_bytes
        try:
            if isinstance(stdin, bytes):
                await process.stdin.send(stdin)
            else:
                async for chunk in stdin:
                    await process.stdin.send(chunk if left_bytes is None else chunk[:left_bytes])
                    left_bytes = None if left_bytes is None else left_bytes - len(chunk)
                    if left_bytes is not None and left_bytes <= 0:
                        break
            await process.stdin.aclose()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return


def account(home: Path, **more: str) -> dict[str, str]:
    """The environment of an account whose home directory is `home`, with little on its PATH."""
    home.mkdir(parents=True, exist_ok=True)
    return {"HOME": str(home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **more}

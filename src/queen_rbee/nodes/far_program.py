"""Runs a program of `far/` on a node's own Python: it travels on stdin, in front of what it is to read.

The command line is the same to every shell, and holds no secret: order and token are in the program's text.
"""

import json
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

import anyio
import anyio.to_thread

from queen_rbee.domain.nodes.far_end import far_error
from queen_rbee.domain.nodes.far_lines import FarLines
from queen_rbee.domain.nodes.shell_words import command_line
from queen_rbee.nodes.shell import Shell
from queen_rbee.ssh.finished import Finished
from rbee_shared.errors import InstallFailedError, RbeeError
from rbee_shared.redaction import printable_line, redact

SILENCE_S = 30.0
_SIGN_OF_LIFE_S = 2.0
_SIGN_OF_LIFE = b"\n"
_FAR = "queen_rbee.nodes.far"
_SHARED = ("ground", "versions", "steps")  # each may import those before it
_SHOWN_CHARACTERS = 300

# The modules know each other by the names that they have here.
_BOOT = """
import sys, types
sources = {sources!r}
for name, source in sources.items():
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), vars(module))
sys.modules[{main!r}].main({order!r})
"""


@dataclass(frozen=True)
class Site:
    """Where rbee is put: a machine, for people `node`; the directory; the Python there that does it."""

    shell: Shell
    node: str
    home: str
    python: str


class FarProgram:
    """One program of `far/` and its order."""

    def __init__(self, name: str, order: Callable[[str], Any]) -> None:
        """`order`: the dataclass that the program's `main` reads, made of the nonce."""
        self._name = name
        self._nonce = secrets.token_hex(16)
        self._order = order(self._nonce)
        self._ready = anyio.Event()
        self._over = anyio.Event()
        self._unsent: RbeeError | None = None
        self._lines = FarLines(self._nonce)
        self._end: dict[str, Any] = {}

    async def run(
        self, site: Site, payload: AsyncGenerator[bytes], tell: Callable[[str], None], *, limit_s: float
    ) -> dict[str, Any]:
        """What it says is done. It ends itself when this queen is not heard for `SILENCE_S`.

        `payload` is sent when it says that it is `ready` for it, which may be never.

        Raises:
            RbeeError: why `payload` cannot be read to its end.
            DiskFullError, HiveOwnedError, InstallFailedError: why it is not done.
            SshUnreachableError, RequestTimeoutError: nobody knows what became of it.
        """
        program = await anyio.to_thread.run_sync(self._text)
        command = command_line([site.python, "-I", "-c", f"import sys;exec(sys.stdin.buffer.read({len(program)}))"])

        def hear(chunk: bytes) -> None:
            for said in self._lines.feed(chunk):
                self._hear(said, tell)

        async with aclosing(payload), aclosing(self._stdin(program, payload)) as stdin:
            finished = await site.shell.run(command, stdin, timeout_s=limit_s, hear=hear)
        if "done" in self._end:
            return dict(self._end["done"])
        if self._unsent is not None:
            raise self._unsent
        raise far_error(self._end["failed"], site.node) if "failed" in self._end else self._broken(site, finished)

    def _hear(self, said: dict[str, Any], tell: Callable[[str], None]) -> None:
        if "say" in said:
            tell(str(said["say"]))
        elif isinstance(said.get("done"), dict) or "failed" in said:
            self._end = said
            self._over.set()
            self._ready.set()
        elif "ready" in said:
            self._ready.set()

    async def _stdin(self, program: bytes, payload: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        """Between them and after them come signs of life, so that it also knows of a cable that was pulled out.

        An error of the payload is kept, and its end is all that is sent: the shell would bury it in groups of others.
        """
        yield program
        while not await _comes_soon(self._ready):
            yield _SIGN_OF_LIFE
        try:
            while not self._over.is_set() and (chunk := await anext(payload, None)) is not None:
                yield chunk
        except RbeeError as error:
            self._unsent = error
            return
        while not await _comes_soon(self._over):
            yield _SIGN_OF_LIFE

    def _text(self) -> bytes:
        here = files(_FAR)
        sources = {
            f"{_FAR}.{name}": here.joinpath(f"{name}.py").read_text(encoding="utf-8") for name in (*_SHARED, self._name)
        }
        text = _BOOT.format(sources=sources, main=f"{_FAR}.{self._name}", order=json.dumps(asdict(self._order)))
        return text.encode()

    def _broken(self, site: Site, finished: Finished) -> InstallFailedError:
        said = (finished.stderr.strip() or self._lines.noise.strip()).decode(errors="replace").splitlines()
        last = redact(printable_line(said[-1]))[:_SHOWN_CHARACTERS] if said else "it said nothing"
        return InstallFailedError(
            f"{site.node}: {site.python} ended with status {finished.status} before it was done: {last}",
            hint=f"Try `ssh {site.node} {site.python} --version`, then run the command again.",
        )


async def _comes_soon(event: anyio.Event) -> bool:
    with anyio.move_on_after(_SIGN_OF_LIFE_S):
        await event.wait()
    return event.is_set()


async def nothing() -> AsyncGenerator[bytes]:
    """No payload."""
    return
    yield b""

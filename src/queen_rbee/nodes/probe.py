"""Looks at another machine through its login shell, whatever that is: one `sh`, nothing written there."""

import secrets
import shlex
from importlib.resources import files

import anyio.to_thread

from queen_rbee.domain.nodes.probe_report import Probe, read_probe
from queen_rbee.domain.nodes.shell_words import command_line
from queen_rbee.nodes.shell import Shell
from rbee_shared.errors import InvalidRequestError, RequestTimeoutError

PROBE_S = 30.0
_MAX_PRINTED_BYTES = 512 * 1024


async def probe(shell: Shell, home: str, *, timeout_s: float = PROBE_S) -> Probe:
    """What is there. `home`: where rbee is or will be, absolute or below `~`.

    Raises:
        ShellUnusableError: the shell does not run what it is given, or not in time.
        InvalidRequestError: `home` is neither, or has a line break.
        SshUnreachableError: the connection broke off.
    """
    _require_home(home)
    nonce = secrets.token_hex(16)
    text = await anyio.to_thread.run_sync(_script)
    script = f"nonce={nonce}\nasked={shlex.quote(home)}\n{text}"
    heard = bytearray()

    def hear(chunk: bytes) -> None:
        heard.extend(chunk[: max(0, _MAX_PRINTED_BYTES - len(heard))])

    complaints = b""
    try:
        finished = await shell.run(command_line(["/bin/sh", "-s"]), script.encode(), timeout_s=timeout_s, hear=hear)
        complaints = finished.stderr
    except RequestTimeoutError:
        complaints = f"nothing more within {timeout_s:.0f} s".encode()
    return read_probe(_text(heard), nonce, _text(complaints))


def _require_home(home: str) -> None:
    if not (home == "~" or home.startswith(("~/", "/"))):
        raise InvalidRequestError(
            f"the home {home!r} is neither absolute nor below ~", hint="Write /directory or ~/directory."
        )
    command_line([home])  # raises for what no shell can be given


def _script() -> str:
    return files("queen_rbee.nodes.far").joinpath("probe.sh").read_text(encoding="utf-8")


def _text(printed: bytes | bytearray) -> str:
    return bytes(printed).decode(errors="replace")

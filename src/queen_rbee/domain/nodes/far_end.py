"""How an installation on a node ended, as errors for people: from what its program there said last. Pure."""

import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError

from rbee_shared.contracts.base import Wire
from rbee_shared.errors import DiskFullError, HiveOwnedError, InstallFailedError, RbeeError
from rbee_shared.redaction import printable_line, redact

_SHOWN_LINES = 8
_NO_ROOM = re.compile(r"No space left on device|Disk quota exceeded|ENOSPC")
_NO_INDEX = re.compile(
    r"name resolution|Name or service not known|nodename nor servname|Network is unreachable|No route to host"
    r"|Connection refused|[Tt]imed out|ProxyError|Connection reset|Connection broken|SSLError|NewConnectionError"
)
_WRONG_HASH = re.compile(r"DO NOT MATCH THE HASHES")
_NO_WHEEL = re.compile(r"No matching distribution found for (?P<what>[\w.=-]+)")
_COMPLAINT = re.compile(r"^(?:ERROR|error)\b|Error:")


class FarFailure(Wire):
    """The last word of a program on a node that did not do what it was told."""

    why: Literal["token", "busy", "running", "foreign", "step", "system", "interrupted"]
    text: str = Field(max_length=4096)
    lines: tuple[str, ...] = ()


def far_error(said: Any, where: str, *, lacking_hint: str | None = None) -> RbeeError:
    """What `said`, the object under `failed`, means.

    `where`: the node's name, for people. `lacking_hint`: what to do where a library cannot be had, if that is no node.
    """
    try:
        failure = FarFailure.model_validate(said)
    except ValidationError:
        return InstallFailedError(f"{where}: the installer said something that this queen does not know", hint=_AGAIN)
    text = f"{where}: {redact(printable_line(failure.text))}"
    details = {"last_lines": [redact(printable_line(line)) for line in failure.lines[-_SHOWN_LINES:]]}
    if failure.why in _HINTS:
        refusal = HiveOwnedError if failure.why == "token" else InstallFailedError
        return refusal(text, hint=_HINTS[failure.why].format(node=where))
    return _told_by(failure, text, details, lacking_hint or _WHEELHOUSE.format(node=where))


_AGAIN = "Run the command again."
_HINTS = {
    "token": (
        "That account belongs to another cluster: uninstall rbee with that one's queen, "
        "or name another directory: rbee-keeper node add {node} --home DIRECTORY."
    ),
    "running": "Stop it first: rbee-keeper node stop {node}.",
    "busy": "Wait until the other installation is done, then run the command again.",
    "foreign": "Look at that directory, and remove it by hand if it is not needed.",
}
_WHEELHOUSE = "Send the libraries along: rbee-keeper node wheelhouse {node}, then install again."


def _told_by(failure: FarFailure, text: str, details: dict[str, Any], lacking_hint: str) -> RbeeError:
    whole = "\n".join([failure.text, *failure.lines])
    if _NO_ROOM.search(whole):
        return DiskFullError(f"{text}: the disk is full", hint="Free space there, then run it again.", details=details)
    if _NO_INDEX.search(whole):
        return InstallFailedError(f"{text}: it reaches no package index", hint=lacking_hint, details=details)
    if _WRONG_HASH.search(whole):
        hint = "Something on the way serves other files than the locked ones; see which index pip uses there."
        return InstallFailedError(f"{text}: a package is not the one that was locked", hint=hint, details=details)
    if lacking := _NO_WHEEL.search(whole):
        return InstallFailedError(f"{text}: there is no {lacking['what']} for it", hint=lacking_hint, details=details)
    hint = "Read the lines above." if failure.lines else _AGAIN
    return InstallFailedError(f"{text}{_complaint(failure.lines)}", hint=hint, details=details)


def _complaint(lines: Sequence[str]) -> str:
    found = [line for line in lines if _COMPLAINT.search(line)] or list(lines)
    return f": {redact(printable_line(found[-1]))[:400]}" if found else ""

"""The host key of a machine, shown to the person who is to say whether it is that machine's own."""

import re
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from rbee_keeper.question import says_yes, somebody_is_there
from rbee_keeper.render import Screen
from rbee_shared.contracts.nodes import FINGERPRINT
from rbee_shared.errors import BadPeerError, RbeeError
from rbee_shared.redaction import printable_line
from rbee_shared.tables import facts

_FINGERPRINT = re.compile(FINGERPRINT)
_NO_EDGE = 10_000  # a fingerprint is compared by eye: never folded


async def confirmed_fingerprint(screen: Screen, refusal: RbeeError) -> str:
    """The fingerprint of the key that `refusal` is about, once somebody at the terminal has said yes to it.

    Raises:
        RbeeError: `refusal`, with its next step, where nobody is there or they say no.
        BadPeerError: it tells of no key.
    """
    fingerprint = str(refusal.details.get("fingerprint", ""))
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise BadPeerError(f"the queen says {refusal.code} without the key's fingerprint")
    if not somebody_is_there():
        line = shlex.join([*_command_line(), "--fingerprint", fingerprint])
        raise _again(refusal, f"Compare it with the machine's own; if it is right, say so: {printable_line(line)}")
    screen.put_question(_shown(refusal.details) + "\n")
    if await says_yes(screen, "Is that the machine's own key?"):
        return fingerprint
    raise _again(refusal, f"Nothing was changed. {refusal.hint}")


def _again(refusal: RbeeError, hint: str) -> RbeeError:
    shown = f"{refusal.message}: {refusal.details['fingerprint']}"
    return type(refusal)(shown, hint=hint, details=refusal.details, source=refusal.source)


def _shown(details: Mapping[str, Any]) -> str:
    known = details.get("known_fingerprint")
    pairs = [
        ("machine", f"{details.get('host')}, port {details.get('port')}"),
        ("its key was", known),
        ("its key is now" if known else "its host key is", f"{details['fingerprint']} ({details.get('key_type')})"),
    ]
    return facts(pairs, width=_NO_EDGE)


def _command_line() -> list[str]:
    """As it was typed."""
    return ["rbee-keeper", *sys.argv[1:]]

"""A question to the person at the terminal, answered with yes or no; nothing typed and end-of-file are no."""

import os
import sys

import anyio

from rbee_keeper.render import Screen

_MAX_ANSWER_BYTES = 4096
_YES = frozenset({"y", "yes"})


def somebody_is_there() -> bool:
    """Whether stdin is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


async def says_yes(screen: Screen, question: str) -> bool:
    """Ask; only where `somebody_is_there`. Can be cut short like any other wait."""
    screen.put_question(f"{question} [yes/no] ")
    descriptor = sys.stdin.fileno()
    await anyio.wait_readable(descriptor)  # a terminal hands over whole lines, so that the read does not wait
    answer = os.read(descriptor, _MAX_ANSWER_BYTES)
    if not answer.endswith(b"\n"):  # Ctrl+D leaves the cursor behind the question
        screen.put_question("\n")
    return answer.decode(errors="replace").strip().lower() in _YES

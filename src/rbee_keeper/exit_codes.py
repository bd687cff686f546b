"""The keeper's exit status: the table that all command lines share, and two of its own.

6: the stream broke after output, so what was printed is incomplete. 124: time-out.
"""

from rbee_shared.exit_codes import (
    BY_CODE,
    DONE,
    FAILED,
    NO_ROOM,
    NOBODY_READS,
    NOT_ALLOWED,
    UNREACHABLE,
    USAGE,
    after_signal,
    of_error,
)

__all__ = [
    "BY_CODE", "DONE", "FAILED", "INCOMPLETE", "NOBODY_READS", "NOT_ALLOWED", "NO_ROOM", "TIMED_OUT", "UNREACHABLE",
    "USAGE", "after_signal", "exit_code",
]  # fmt: skip

INCOMPLETE = 6
TIMED_OUT = 124


def exit_code(error_code: str, *, answer_begun: bool) -> int:
    """The exit status for an error; whatever fails after some of the answer was printed left it incomplete."""
    return INCOMPLETE if answer_begun else of_error(error_code)

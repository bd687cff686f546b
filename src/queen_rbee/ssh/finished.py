"""What became of a command on another machine."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finished:
    """`status` is the exit status, -1 after a signal; of what it said only the beginning is kept."""

    status: int
    stdout: bytes
    stderr: bytes

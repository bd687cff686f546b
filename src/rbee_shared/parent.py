"""Who has started this program, as `--parent` says it. Imports next to nothing: it is asked before all else."""

from collections.abc import Sequence
from enum import StrEnum
from itertools import zip_longest

_OPTION = "--parent"


class Parent(StrEnum):
    """How the one who started a daemon holds it. Either way stdin carries a handshake, and stdout takes records.

    `stdin`: a process of this machine, whose end is the daemon's too. `ssh`: one at the far end of a connection, which
    may break and be made anew: that it broke is news, and no order to stop.
    """

    STDIN = "stdin"
    SSH = "ssh"


def parent_of(arguments: Sequence[str]) -> Parent | None:
    """What a command line names, the last one where it does so twice; None without, or for what it will be refused."""
    named = None
    for option, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        name, is_joined, value = option.partition("=")
        if name == _OPTION:
            named = value if is_joined else following
    return Parent(named) if named in set(Parent) else None

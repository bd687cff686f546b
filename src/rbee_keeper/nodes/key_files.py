"""Whose file the key of a node is: it lies on the queen's machine, and she opens it."""

from pathlib import Path

from rbee_shared.errors import InvalidRequestError


def key_for_queen(named: str | None, *, is_elsewhere: bool) -> str | None:
    """The key's path as she finds it; `~` is left for her, for it is her home.

    Raises:
        InvalidRequestError: the path begins in a directory of this machine, and she `is_elsewhere`.
    """
    if not named or named.startswith(("/", "~")):
        return named
    if is_elsewhere:
        raise InvalidRequestError(
            f"{named} begins in a directory of this machine, and the queen is on another one",
            hint="Name the key as it is on hers, from / or ~: --key '~/.ssh/id_ed25519'",
        )
    return str(Path(named).absolute())

"""The cluster's token: one file, made on first start, readable by its owner only."""

import hmac
import os
import re
import secrets
import stat
from pathlib import Path

from rbee_shared.errors import ForbiddenError, InvalidApiKeyError, MissingApiKeyError
from rbee_shared.ids import new_secret

_PRIVATE_FILE = 0o600
_ANOTHER_FILE = "Name another file with --token-file, or remove this one: a new one is made at start."
_TOKEN = re.compile(r"[!-~]+")  # what can stand in an Authorization header
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_token(path: Path) -> str:
    """The token in `path`.

    Raises:
        MissingApiKeyError: there is no such file, or it is empty.
        ForbiddenError: others than its owner can read it, this user cannot, or it holds no token.
    """
    try:
        mode = path.stat().st_mode
        token = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise MissingApiKeyError(f"there is no token file at {path}") from None
    except UnicodeDecodeError:
        raise ForbiddenError(f"the token file {path} holds no token", hint=_ANOTHER_FILE) from None
    except OSError as error:
        raise ForbiddenError(f"the token file {path} cannot be read: {error.strerror}", hint=_ANOTHER_FILE) from None
    if mode & _OTHERS:
        raise ForbiddenError(f"the token file {path} can be read by others", hint=f"chmod 600 {path}")
    if not token:
        raise MissingApiKeyError(f"the token file {path} is empty", hint=f"Remove {path}: a new one is made at start.")
    if not _TOKEN.fullmatch(token):
        raise ForbiddenError(f"the token file {path} holds no token", hint=_ANOTHER_FILE)
    return token


def read_or_make_token(path: Path) -> str:
    """The token in `path`, made first if there is none. Safe for two programs that start at once."""
    if not path.exists():
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(new_secret() + "\n")
            _link_unless_there(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    return read_token(path)


def _link_unless_there(draft: Path, path: Path) -> None:
    try:
        path.hardlink_to(draft)  # unlike rename this never replaces a token that another program just made
    except FileExistsError:
        return


def require_bearer(header: str | None, expected: str) -> None:
    """Compare an Authorization header with the expected token, in constant time.

    Raises:
        MissingApiKeyError: no bearer token was sent.
        InvalidApiKeyError: another one was.
    """
    if not same_secret(bearer_of(header), expected):
        raise InvalidApiKeyError("that token is not this cluster's")


def bearer_of(header: str | None) -> str:
    """The token that an Authorization header carries.

    Raises:
        MissingApiKeyError: none.
    """
    scheme, _, sent = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not sent.strip():
        raise MissingApiKeyError("this route wants a token")
    return sent.strip()


def same_secret(sent: str, expected: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(sent.encode(), expected.encode())

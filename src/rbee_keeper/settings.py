"""Where the queen is and what opens her: flag over environment over config.toml over default. Light: no pydantic."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rbee_shared.clocks import Clocks
from rbee_shared.config_file import read_config
from rbee_shared.errors import InvalidRequestError
from rbee_shared.paths import Home

DEFAULT_QUEEN_PORT = 8080
_KNOWN = frozenset({"queen_url", "token_file"})
_MAX_PORT = 65_535


@dataclass(frozen=True)
class KeeperSettings:
    """`queen_url` None: she is looked for on this machine, and may be woken. `token_file` None: the home's own."""

    home: Home
    clocks: Clocks
    queen_url: str | None
    queen_port: int
    token_file: Path | None

    @property
    def token_path(self) -> Path:
        return self.token_file or self.home.token

    def token(self) -> str:
        """The cluster's token.

        Raises:
            MissingApiKeyError, ForbiddenError: there is none, or others can read it.
        """
        from rbee_shared.auth import read_token  # noqa: PLC0415 - an answer from this machine needs no token

        return read_token(self.token_path)

    def task_token(self, *, needed: bool) -> str | None:
        """The token for routes that are open on this machine: sent only where it is `needed`, or when it was named.

        A queen of another home may listen here; our token is nothing to her, and no token is all she asks for.
        """
        if self.token_file is not None:
            return self.token()
        return self.token() if needed and self.token_path.exists() else None


def load_settings(
    *,
    queen_url: str | None = None,
    token_file: Path | None = None,
    port: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> KeeperSettings:
    """Read the settings; a flag that is None was not given.

    Raises:
        InvalidRequestError: a value is wrong, or config.toml is.
    """
    home = Home.from_environment()
    tables = read_config(home.config)
    mine = tables.get("keeper", {})
    if unknown := sorted(set(mine) - _KNOWN):
        raise InvalidRequestError(
            f"{home.config} has unknown keys in [keeper]: {', '.join(unknown)}",
            hint=f"Known are {', '.join(sorted(_KNOWN))}.",
        )
    file_named = token_file or environment.get("RBEE_TOKEN_FILE") or mine.get("token_file")
    url_named = queen_url or environment.get("RBEE_QUEEN_URL") or mine.get("queen_url")
    in_file = tables.get("queen", {}).get("port", DEFAULT_QUEEN_PORT)
    port_named = port if port is not None else environment.get("RBEE_QUEEN_PORT") or in_file
    return KeeperSettings(
        home=home,
        clocks=Clocks.load(tables.get("clocks", {}), environment),
        queen_url=str(url_named) if url_named else None,
        queen_port=_port(port_named),
        token_file=Path(str(file_named)).expanduser() if file_named else None,
    )


def _port(value: object) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit() and int(text) <= _MAX_PORT):
        raise InvalidRequestError(
            f"the queen's port must be a number from 0 to {_MAX_PORT}, got {text!r}",
            hint="Correct --port, RBEE_QUEEN_PORT or `port` in [queen] of config.toml.",
        )
    return int(text)

"""Settings of a daemon: flag over environment over config.toml over default, each typed, each with its unit.

The file is `~/.rbee/config.toml` with one table per program (`[queen]`, `[hive]`, `[worker]`), `[keeper]` and
`[clocks]`. A key that no program knows is an error: a setting that is silently ignored costs somebody a night.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from rbee_shared.errors import InvalidRequestError

TABLES = frozenset({"keeper", "queen", "hive", "worker", "clocks"})


class DaemonSettings(BaseSettings):
    """Base of each daemon's settings; `table` is its part of config.toml, `env_prefix` its environment variables."""

    table: ClassVar[str]
    model_config = SettingsConfigDict(frozen=True, extra="forbid")


SettingsT = TypeVar("SettingsT", bound=DaemonSettings)


def load_settings(cls: type[SettingsT], *, flags: Mapping[str, Any], config: Path) -> SettingsT:
    """Build the settings; a flag that is None was not given.

    Raises:
        InvalidRequestError: a value is out of its bounds, or config.toml is not valid; every fault is named.
    """
    prefix = cls.model_config.get("env_prefix", "")
    in_file = read_config(config).get(cls.table, {})
    # what is passed to the constructor wins over the environment, so a file's value must yield to it here
    from_file = {name: value for name, value in in_file.items() if f"{prefix}{name}".upper() not in os.environ}
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return cls(**{**from_file, **given})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise InvalidRequestError(
            f"{cls.table} settings: {faults}", hint=f"Correct the flag, the {prefix}… variable or {config}."
        ) from None


def read_config(config: Path) -> dict[str, dict[str, Any]]:
    """The tables of config.toml; empty when there is no such file.

    Raises:
        InvalidRequestError: it is not TOML, or has a table that no program reads.
    """
    if not config.exists():
        return {}
    try:
        tables = tomllib.loads(config.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{config} is not valid TOML: {error}") from None
    unknown = sorted(name for name, table in tables.items() if name not in TABLES or not isinstance(table, dict))
    if unknown:
        raise InvalidRequestError(
            f"{config} has entries that no program reads: {', '.join(unknown)}",
            hint=f"The tables are {', '.join(sorted(TABLES))}.",
        )
    return tables

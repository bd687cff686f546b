"""Settings of a daemon: flag over environment over config.toml over default, each typed, each with its unit.

The file is `~/.rbee/config.toml` with one table per program (`[queen]`, `[hive]`, `[worker]`), `[keeper]` and
`[clocks]`. A key that no program knows is an error: a setting that is silently ignored costs somebody a night.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from rbee_shared.config_file import read_config
from rbee_shared.errors import InvalidRequestError


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
    hint = f"Correct the flag, the {prefix}… variable or {config}."
    try:
        return cls(**{**from_file, **given})
    except SettingsError as error:  # a list in a variable that is no JSON
        raise InvalidRequestError(f"{cls.table} settings: {error}; a list is written as JSON", hint=hint) from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise InvalidRequestError(f"{cls.table} settings: {faults}", hint=hint) from None

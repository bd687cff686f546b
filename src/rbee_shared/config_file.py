"""Reads config.toml. Costs nothing to import: the keeper does it at every start."""

from pathlib import Path
from typing import Any

from rbee_shared.errors import InvalidRequestError

TABLES = frozenset({"keeper", "queen", "hive", "worker", "clocks"})


def read_config(config: Path) -> dict[str, dict[str, Any]]:
    """The tables of config.toml; empty when there is no such file.

    Raises:
        InvalidRequestError: it is not TOML, or has a table that no program reads.
    """
    if not config.exists():
        return {}
    import tomllib  # noqa: PLC0415 - most homes have no config.toml, and the keeper starts without it

    try:
        tables = tomllib.loads(config.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"{config} is not valid TOML: {error}") from None
    except OSError as error:
        raise InvalidRequestError(f"{config} cannot be read: {error.strerror}") from None
    unknown = sorted(name for name, table in tables.items() if name not in TABLES or not isinstance(table, dict))
    if unknown:
        raise InvalidRequestError(
            f"{config} has entries that no program reads: {', '.join(unknown)}",
            hint=f"The tables are {', '.join(sorted(TABLES))}.",
        )
    return tables

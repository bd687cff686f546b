"""docs/operations.md lists every setting of every program with its default, and every metric of the hive."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic_core import PydanticUndefined

from llm_worker_rbee.settings import WorkerSettings
from queen_rbee.settings import QueenSettings
from rbee_hive.metrics import Now, render
from rbee_hive.settings import HiveSettings
from rbee_hive.tally import Tally
from rbee_keeper.settings import _KNOWN as KEEPER_KEYS
from rbee_shared.clocks import Clocks
from rbee_shared.settings import DaemonSettings

TEXT = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")


def rows(table: str) -> dict[str, str]:
    """The keys of that table of config.toml with their defaults, as the document has them."""
    section = TEXT.partition(f"### [{table}]\n")[2].partition("\n### ")[0]
    found = re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", section, re.MULTILINE)
    return {name: default.strip("` ") for name, default in found}


@pytest.mark.parametrize("settings", [HiveSettings, QueenSettings, WorkerSettings])
def test_every_setting_of_a_daemon(settings: type[DaemonSettings]) -> None:
    documented = rows(settings.table)
    assert set(documented) == set(settings.model_fields)
    for name, field in settings.model_fields.items():
        if field.default is PydanticUndefined:  # wanted, or made when it is asked for
            continue
        said = "none" if field.default in {None, ()} else str(field.default)
        assert documented[name].lower() == said.lower(), name


def test_every_clock() -> None:
    assert {name: float(default) for name, default in rows("clocks").items()} == {
        field.name: field.default for field in fields(Clocks)
    }


def test_every_setting_of_the_keeper() -> None:
    assert set(rows("keeper")) == KEEPER_KEYS


def test_every_metric_of_the_hive() -> None:
    now = Now(
        workers=(), crashes={"m": 1}, restarts=0, devices=(), models=1, models_downloaded=1, provisions=0,
        disk_free_bytes=1,
    )  # fmt: skip
    tally = Tally()
    tally.downloads["DONE"] += 1
    tally.builds["DONE"] += 1
    body, _ = render(tally, now)
    exposed = {family.name for family in text_string_to_metric_families(body.decode())}
    section = TEXT.partition("## Watching")[2].partition("\n## ")[0]
    documented = set()
    for name in re.findall(r"`(rbee_hive_\w*(?:\{total,free\}\w+)?)", section):
        documented |= {name.replace("{total,free}", each) for each in ("total", "free")}

    assert {name.removesuffix("_total") for name in documented} == exposed

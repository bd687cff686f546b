"""docs/protocol.md says what the code does: errors, exit codes, routes, fields of a task, events."""

import re
import typing
from collections.abc import Iterable
from pathlib import Path

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

import llm_worker_rbee.routes.execute
import llm_worker_rbee.routes.health
import llm_worker_rbee.routes.metrics
import llm_worker_rbee.routes.ready
import llm_worker_rbee.routes.shutdown
import queen_rbee.routes.cluster
import queen_rbee.routes.daemon
import queen_rbee.routes.nodes
import queen_rbee.routes.pool
import queen_rbee.routes.tasks
import rbee_hive.routes.control
import rbee_hive.routes.devices
import rbee_hive.routes.events
import rbee_hive.routes.health
import rbee_hive.routes.heartbeats
import rbee_hive.routes.models
import rbee_hive.routes.operations
import rbee_hive.routes.provisions
import rbee_hive.routes.workers
from rbee_keeper import exit_codes
from rbee_shared.contracts.events import TaskEvent
from rbee_shared.contracts.tasks import MAX_TOKENS_LIMIT, NOT_BUILT_YET, TaskRequest
from rbee_shared.errors import ERRORS_BY_CODE

TEXT = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text(encoding="utf-8")
PROGRAMS: dict[str, list[APIRouter]] = {
    "Queen": [
        module.router
        for module in (
            queen_rbee.routes.cluster,
            queen_rbee.routes.daemon,
            queen_rbee.routes.nodes,
            queen_rbee.routes.pool,
            queen_rbee.routes.tasks,
        )
    ],
    "Hive": [
        module.router
        for module in (
            rbee_hive.routes.control,
            rbee_hive.routes.devices,
            rbee_hive.routes.events,
            rbee_hive.routes.health,
            rbee_hive.routes.heartbeats,
            rbee_hive.routes.models,
            rbee_hive.routes.operations,
            rbee_hive.routes.provisions,
            rbee_hive.routes.workers,
        )
    ],
    "Worker": [
        module.router
        for module in (
            llm_worker_rbee.routes.execute,
            llm_worker_rbee.routes.health,
            llm_worker_rbee.routes.metrics,
            llm_worker_rbee.routes.ready,
            llm_worker_rbee.routes.shutdown,
        )
    ],
}


def rows_after(heading: str) -> list[list[str]]:
    """The cells of the table rows between that heading and the next."""
    section = re.split(r"^##+ ", TEXT.partition(f"## {heading}")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = [line for line in section.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def words(cells: list[str]) -> set[str]:
    """Every name that stands in code type in these cells."""
    return {word for cell in cells for code in re.findall(r"`([^`]+)`", cell) for word in re.findall(r"\w+", code)}


def test_errors() -> None:
    documented = {row[0].strip("`"): tuple(row[1:]) for row in rows_after("Errors")[1:]}
    in_code = {
        code: (str(cls.http_status), (cls.__doc__ or "").strip(), cls.default_hint)
        for code, cls in ERRORS_BY_CODE.items()
    }
    assert documented == in_code


def test_exit_codes() -> None:
    documented = {int(row[0]) for row in rows_after("Exit codes")[1:]}
    signals = {exit_codes.after_signal(number) for number in (1, 2, 15)}
    others = {exit_codes.DONE, exit_codes.TIMED_OUT, exit_codes.INCOMPLETE, exit_codes.NOBODY_READS}

    assert documented == set(exit_codes.BY_CODE.values()) | signals | others


@pytest.mark.parametrize("program", PROGRAMS)
def test_routes(program: str) -> None:
    first_column = " ".join(row[0] for row in rows_after(program))
    documented = set(re.findall(r"/[a-z0-9/{}_.-]+", first_column))
    for ours in re.findall(r"(/\S+/)\{([^}]*,[^}]*)\}", first_column):
        documented |= {ours[0] + name for name in ours[1].split(",")}
    routes = [route for router in PROGRAMS[program] for route in router.routes if isinstance(route, APIRoute)]

    def anonymous(paths: Iterable[str]) -> set[str]:
        return {re.sub(r"\{[\w:]+\}", "{id}", path) for path in paths}

    assert anonymous(route.path for route in routes) == anonymous(documented)


def test_fields_of_a_task() -> None:
    rows = rows_after("Submitting a task")
    start = next(index for index, row in enumerate(rows) if row[0] == "field")
    documented = words([row[0] for row in rows[start:]])
    text = " ".join(" ".join(row) for row in rows)

    assert documented == set(TaskRequest.model_fields)
    for name in ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty"):
        row = next(row for row in rows[start:] if f"`{name}`" in row[0])
        defaults = dict(zip(re.findall(r"`(\w+)`", row[0]), row[1].split(", "), strict=True))
        assert float(defaults[name]) == TaskRequest.model_fields[name].default
    assert f"1 to {MAX_TOKENS_LIMIT}" in text
    unbuilt = TEXT.partition("A field nobody knows")[2].partition("\n\n")[0]
    assert words([unbuilt]) >= NOT_BUILT_YET


def test_events() -> None:
    documented = {row[0].strip("`"): words([row[1]]) for row in rows_after("The event stream")[1:]}
    for event in typing.get_args(typing.get_args(TaskEvent)[0]):
        fields = set(event.model_fields) - {"type"}
        assert fields <= documented[event.model_fields["type"].default], event.__name__

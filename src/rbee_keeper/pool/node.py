"""`pool status`, `pool update` and `pool test`: the node as a whole."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rbee_keeper import exit_codes
from rbee_keeper.nodes.actions import Action, text_of
from rbee_keeper.nodes.views import NodeTexts
from rbee_keeper.pool.hive import Hive
from rbee_keeper.pool.hosts import Answer
from rbee_keeper.pool.models import Ask
from rbee_shared import hive_views
from rbee_shared.contracts.hives import DeviceTest, SelfTest
from rbee_shared.contracts.nodes import NodeAction
from rbee_shared.contracts.tasks import DEFAULT_MODEL
from rbee_shared.errors import error_from_body
from rbee_shared.hive_advice import told_from_afar
from rbee_shared.redaction import printable_line
from rbee_shared.tables import facts, framed
from rbee_shared.units import format_bytes, format_seconds

_TASK = {"model": DEFAULT_MODEL, "prompt": "Once upon a time", "max_tokens": 20, "temperature": 0, "template": "raw"}


async def status(hive: Hive) -> Answer:
    """Everything about the node: its devices, workers, models, builds, and when it was last heard of."""
    view, found = await hive.view(), await hive.status()
    told = NodeTexts(time.time_ns() // 1_000_000)
    more = [
        ("last heartbeat", told.ago(view.last_seen_ms)),
        ("drained", "it gets no new work" if view.drained else None),
    ]
    document = found.model_dump(mode="json", exclude={"workers": {"__all__": {"api_key"}}})
    return Answer(
        {**document, "last_seen_ms": view.last_seen_ms, "drained": view.drained},
        lambda width: hive_views.status(found, width, more),
    )


def update(options: NodeAction) -> Ask:
    """The queen's own version for the node."""

    async def ask(hive: Hive) -> Answer:
        action = Action(hive.node, "update", options)
        outcome = await action.perform(hive.queen, hive.voice)
        return Answer(outcome.model_dump(mode="json"), lambda width: text_of(action.is_done, outcome, width))

    return ask


async def quick_test(hive: Hive) -> Answer:
    """One decoded token for each device that has a worker build, and the disk."""
    found = await hive.self_test()
    return Answer(
        found.model_dump(mode="json"),
        lambda width: _self_test(found, hive.node, width),
        exit_codes.DONE if found.ok else exit_codes.FAILED,
    )


@dataclass(frozen=True)
class _Receipt:
    """What a task told of itself."""

    text: str
    started: dict[str, Any]
    end: dict[str, Any]


async def integration_test(hive: Hive) -> Answer:
    """A whole task on that node: queue, placement, worker, tokens."""
    receipt = await _run_task(hive)
    tokens, took_ms = receipt.end.get("tokens_out"), receipt.end.get("decode_time_ms")
    pairs = [
        ("task", receipt.started.get("task_id")),
        ("worker", receipt.started.get("worker_id")),
        ("device", receipt.started.get("device")),
        ("tokens", tokens),
        ("took", format_seconds(took_ms / 1000) if isinstance(took_ms, int | float) else None),
        ("answer", receipt.text),
    ]
    passed = isinstance(tokens, int) and tokens > 0
    verdict = f"{hive.node} answered" if passed else f"{hive.node} answered without a token"
    return Answer(
        {"ok": passed, "text": receipt.text, "started": receipt.started, "end": receipt.end},
        lambda width: "\n".join([verdict, facts(pairs, width=width)]),
        exit_codes.DONE if passed else exit_codes.FAILED,
    )


async def _run_task(hive: Hive) -> _Receipt:
    text, started = "", {}

    def take(kind: str, data: dict[str, Any]) -> None:
        nonlocal text, started
        if kind == "token":
            text += str(data.get("t", ""))
        elif kind == "started":
            started = data

    async with hive.queen.stream({**_TASK, "node": hive.node}) as events:
        end = await hive.voice.follow(events, take)
    return _Receipt(text, started, end)


def _self_test(found: SelfTest, node: str, width: int) -> str:
    table = framed(
        f"Self-test of {node}",
        ("Device", "Backend", "Build", "Result", "Took"),
        map(_device_cells, found.devices),
        f"Disk: {format_bytes(found.disk.free_bytes)} free in {found.disk.models_dir}",
        width=width,
    )
    faults = [line for test in found.devices if test.error is not None for line in _fault(test.id, test.error, node)]
    faults += [printable_line(f"disk: {found.disk.error}")] if found.disk.error else []
    verdict = f"{node} computes" if found.ok else f"{node} has failed its test"
    return "\n".join([table, *faults, verdict])


def _device_cells(test: DeviceTest) -> tuple[str, ...]:
    took = "-" if test.seconds is None else format_seconds(test.seconds)
    return (test.id, test.backend, test.build or "-", "ok" if test.ok else "failed", took)


def _fault(device: str, body: Mapping[str, Any], node: str) -> list[str]:
    error = told_from_afar(error_from_body(body), node)
    return [printable_line(f"{device}: {error.message} ({error.code})"), f"  next: {printable_line(error.hint)}"]

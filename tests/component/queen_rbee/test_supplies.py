"""What the queen has a hive fetch and make before a worker starts: shown to the task, waited for, its failure told."""

from typing import Any

import pytest
from tests.support.queen import LiveQueen
from tests.support.scripted_node import BUILD_ROW, SCRIPTED_ROW, Script, ScriptedNode

from rbee_shared import sse
from rbee_shared.contracts.progress import ProgressEvent

REF = "hf:o/r"
ROW = {**SCRIPTED_ROW, "id": "fetched", "provider": "hf", "reference": "o/r", "file": "x.gguf", "revision": "c" * 40}


def line(text: str) -> bytes:
    return sse.encode("narration", {"actor": "model-provisioner", "action": "download", "human": text, "at_ms": 1})


def progress(done: int) -> bytes:
    event = ProgressEvent(stage="download", done=done, total=10, unit="bytes", per_s=5.0, eta_s=1.0)
    return sse.encode("progress", event.model_dump())


@pytest.fixture
def script() -> Script:
    download: list[bytes | float | None] = [
        line("model size 10 B"),
        progress(1),
        0.3,
        progress(5),
        0.3,
        progress(10),
        sse.encode("end", {"model": ROW}),
    ]
    build: list[bytes | float | None] = [line("compiling"), 0.2, sse.encode("end", {"build": BUILD_ROW})]
    return Script(provisions={"model": [*download], "build": [*build]})


async def told(queen: LiveQueen, **fields: Any) -> list[dict[str, Any]]:
    return await queen.events(await queen.submit(model=REF, **fields))


def human(events: list[dict[str, Any]]) -> list[str]:
    return [event["human"] for event in events if event["type"] == "narration"]


def in_order(lines: list[str], *parts: str) -> bool:
    places = [next((n for n, text in enumerate(lines) if part in text), -1) for part in parts]
    return places == sorted(places) and -1 not in places


async def test_download_and_build_go_on_side_by_side_and_are_shown(queen: LiveQueen, node: ScriptedNode) -> None:
    events = await told(queen)

    lines = human(events)
    assert events[-1]["type"] == "end", events[-1]
    assert set(node.provisions) == {"model", "build"}
    assert in_order(lines, f"there is room on CPU for {REF}", f"asked hive to download {REF}", "model size 10 B")
    assert in_order(
        lines, "asked hive to prepare a cpu worker", "compiling", "worker build is ready", "model is downloaded"
    )
    assert in_order(lines, "model is downloaded by the hive", "worker registered")
    assert [event["done"] for event in events if event["type"] == "progress" and event["stage"] == "download"] == [
        1,
        5,
        10,
    ]
    assert events[-1]["receipt"]["capacity"]["required_bytes"] == 10


async def test_what_is_at_hand_is_not_told_about(queen: LiveQueen, node: ScriptedNode) -> None:
    node.script.provisions.clear()
    lines = human(await queen.events(await queen.submit()))
    assert not [text for text in lines if "asked hive to" in text or "worker build" in text or "downloaded" in text]


async def test_a_broken_connection_to_the_hive_loses_no_event(queen: LiveQueen, node: ScriptedNode) -> None:
    frames = node.script.provisions["model"]
    node.script.provisions["model"] = [*frames[:2], None, *frames[2:]]
    events = await told(queen)

    assert events[-1]["type"] == "end", events[-1]
    assert [event["done"] for event in events if event["type"] == "progress" and event["stage"] == "download"] == [
        1,
        5,
        10,
    ]
    assert node.provision_readers.count(0) == 2
    assert 2 in node.provision_readers


@pytest.mark.parametrize("which", ["model", "build"])
async def test_a_failure_of_either_is_the_tasks_with_its_hint(queen: LiveQueen, node: ScriptedNode, which: str) -> None:
    body = {"code": "DOWNLOAD_FAILED", "message": "the network is down", "hint": "plug it in", "retryable": True}
    node.script.provisions[which] = [sse.encode("error", body)]
    events = await told(queen)

    assert (events[-1]["type"], events[-1]["code"], events[-1]["hint"]) == ("error", "DOWNLOAD_FAILED", "plug it in")
    assert node.spawned == 0


async def test_all_who_wait_for_the_same_download_are_served_by_its_worker(
    queen: LiveQueen, node: ScriptedNode
) -> None:
    node.script.slots = 4
    tasks = [await queen.submit(model=REF) for _ in range(4)]
    assert [(await queen.last(task))["type"] for task in tasks] == ["end"] * 4
    assert node.spawned == 1
    assert node.provisions.count("model") == 1


async def test_a_failed_download_fails_all_who_wait_for_it(queen: LiveQueen, node: ScriptedNode) -> None:
    body = {"code": "NO_GGUF_IN_REPO", "message": "nothing there", "hint": "look elsewhere"}
    node.script.provisions["model"] = [line("asking the Hub"), 0.5, sse.encode("error", body)]
    tasks = [await queen.submit(model=REF) for _ in range(3)]
    assert [(await queen.last(task))["code"] for task in tasks] == ["NO_GGUF_IN_REPO"] * 3


async def test_a_cancelled_task_leaves_the_provision(queen: LiveQueen, node: ScriptedNode) -> None:
    node.script.provisions["model"] = [progress(1), 60.0]
    task = await queen.submit(model=REF)
    await queen.until(task, "preparing")
    assert (await queen.client.post(f"/v2/tasks/{task}/cancel")).status_code in {200, 202}
    assert (await queen.last(task))["code"] == "CANCELLED"


async def test_an_answer_that_is_none_is_said(queen: LiveQueen, node: ScriptedNode) -> None:
    node.script.provisions["model"] = [sse.encode("end", {"model": {"id": 7}})]
    assert (await told(queen))[-1]["code"] == "BAD_PEER"

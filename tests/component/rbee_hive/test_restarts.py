"""Workers that die in every way: which of them come back, under what, and what is said of those that do not."""

import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncGenerator, Callable, Collection, Generator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx2
import psutil
import pytest
from tests.support.hive import TOKEN, LiveHive, gone, operators_hive, queens_side

from rbee_shared.machine_limits import groups_of
from rbee_shared.sse import FrameSplitter

_MISBEHAVING = Path(__file__).parents[2] / "support" / "misbehaving"
_SOON_S = 20.0
_AT_ONCE = {"RBEE_CLOCK_RESTART_DELAY_S": "0.05"}
_NEVER = {"RBEE_CLOCK_RESTART_DELAY_S": "1000"}


def _misbehaving(how: str, **clocks: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(_MISBEHAVING), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": path, "RBEE_TEST_MISBEHAVIOUR": how, **clocks}


async def _until(
    hive: LiveHive, worker_id: str, holds: Callable[[dict[str, Any]], object], within_s: float = _SOON_S
) -> dict[str, Any]:
    record: dict[str, Any] = {}
    with anyio.move_on_after(within_s):
        while True:
            record = await hive.worker(worker_id)
            if holds(record):
                return record
            await anyio.sleep(0.02)
    raise AssertionError(f"not within {within_s:g} s; the worker is {record}")


def _is(state: str, restarts: int) -> Callable[[dict[str, Any]], bool]:
    return lambda record: (record["state"], record["restart_count"]) == (state, restarts)


async def _idle_record(hive: LiveHive) -> dict[str, Any]:
    return await hive.worker((await hive.spawn())["worker_id"])


async def _tokens(hive: LiveHive, record: dict[str, Any]) -> str:
    headers = {"Authorization": f"Bearer {record['api_key']}"}
    body = {"prompt": "once", "max_tokens": 3}
    return (await hive.client.post(f"{record['url']}/execute", json=body, headers=headers)).text


# who comes back


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
async def test_a_crashed_worker_comes_back_under_its_id_with_a_new_process_and_key(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with queens_side() as side, operators_hive(tmp_path / "home") as hive:
        await hive.send("POST", "/v1/adopt", {"queen_url": side.url, "epoch": 1})
        first = await _idle_record(hive)
        os.kill(first["pid"], number)

        waiting = await _until(hive, first["id"], lambda record: record["restart_count"], within_s=1)
        assert (waiting["state"], waiting["pid"], waiting["url"]) == ("starting", None, None)
        for told in (waiting["error"], waiting["last_crash"]):
            assert told["code"] == "WORKER_CRASHED"
            assert number.name in told["message"]
        assert waiting["api_key"] != first["api_key"], "no moment in which the dead process's key is good"

        second = await _until(hive, first["id"], _is("idle", 1))
        assert second["pid"] not in {None, first["pid"]}
        assert (second["error"], second["ended_at"]) == (None, None)
        assert number.name in second["last_crash"]["message"], "whoever asks late is told too"
        assert "event: end" in await _tokens(hive, second)
        late = {"worker_id": first["id"], "state": "idle"}
        answer = await hive.send("POST", "/v1/heartbeat/workers", late, token=first["api_key"])
        assert answer.status_code == 401
        with anyio.fail_after(5):
            while len(side.ready) < 2:  # noqa: ASYNC110
                await anyio.sleep(0.02)
        assert [ready["restart_count"] for ready in side.ready] == [0, 1], "the queen hears of both"


async def test_the_fourth_crash_in_a_row_is_the_last(tmp_path: Path) -> None:
    async with operators_hive(tmp_path / "home", env=_AT_ONCE) as hive:
        record = await _idle_record(hive)
        keys, pids = {record["api_key"]}, {record["pid"]}
        for restarts in (1, 2, 3):
            os.kill(record["pid"], signal.SIGSEGV)
            record = await _until(hive, record["id"], _is("idle", restarts))
            keys.add(record["api_key"])
            pids.add(record["pid"])
        assert (len(keys), len(pids)) == (4, 4)
        os.kill(record["pid"], signal.SIGSEGV)

        failed = await _until(hive, record["id"], _is("failed", 3))

        assert failed["error"]["code"] == "WORKER_CRASHED"
        assert failed["ended_at"] > failed["started_at"]
        await anyio.sleep(0.5)
        assert [(worker["state"], worker["restart_count"]) for worker in await hive.workers()] == [("failed", 3)]
        assert (await _idle_record(hive))["restart_count"] == 0, "a new worker begins anew"


async def test_long_service_is_forgiveness(tmp_path: Path) -> None:
    async with operators_hive(tmp_path / "home", env={**_AT_ONCE, "RBEE_CLOCK_RESTART_RESET_S": "0.1"}) as hive:
        record = await _idle_record(hive)
        for restarts in range(1, 5):
            await anyio.sleep(0.2)
            os.kill(record["pid"], signal.SIGKILL)
            record = await _until(hive, record["id"], _is("idle", restarts))


async def test_who_waits_for_a_worker_that_crashes_while_it_comes_up_gets_the_next_process(tmp_path: Path) -> None:
    async with operators_hive(tmp_path / "home", env=_AT_ONCE) as hive:
        answers: list[httpx2.Response] = []

        async def wait() -> None:
            answers.append(await hive.send("POST", "/v1/workers/spawn?wait=ready", {"model": "storyteller"}))

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            with anyio.fail_after(_SOON_S):
                while not (found := [worker for worker in await hive.workers() if worker["pid"]]):  # noqa: ASYNC110
                    await anyio.sleep(0.005)
            os.kill(found[0]["pid"], signal.SIGKILL)

        assert answers[0].status_code == 201, answers[0].text
        assert answers[0].json()["state"] == "idle"
        assert (await hive.worker(found[0]["id"]))["restart_count"] == 1


async def test_a_worker_that_falls_silent_is_killed_and_started_again(tmp_path: Path) -> None:
    clocks = {"RBEE_CLOCK_LOST_S": "5", "RBEE_CLOCK_HEARTBEAT_S": "0.5"}
    async with operators_hive(tmp_path / "home", env={**_AT_ONCE, **clocks}) as hive:
        first = await _idle_record(hive)
        os.kill(first["pid"], signal.SIGSTOP)

        second = await _until(hive, first["id"], _is("idle", 1), within_s=40)

        assert "heartbeat" in second["last_crash"]["message"]
        assert await gone(first["pid"], 1)


async def test_an_engine_that_stands_still_while_heartbeats_go_on_costs_the_worker_its_process(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="the engine is not installed here")
    env = _misbehaving("stalls", RBEE_CLOCK_ENGINE_STALL_S="2", RBEE_CLOCK_HEARTBEAT_S="0.3", **_AT_ONCE)
    async with operators_hive(tmp_path / "home", env=env) as hive:
        first = await _idle_record(hive)
        assert "event: end" in await _tokens(hive, first)
        os.kill(first["pid"], signal.SIGUSR1)
        await anyio.sleep(0.2)

        answer = await _tokens(hive, first)

        assert '"code":"INFERENCE_STALLED"' in answer, "the worker ends it itself, before it is ended"
        assert "[DONE]" in answer
        second = await _until(hive, first["id"], _is("idle", 1))
        assert second["last_crash"]["code"] == "INFERENCE_STALLED"
        assert second["last_crash"]["details"]["answers_in_engine"] == 1
        assert await gone(first["pid"], 1)
        assert "event: end" in await _tokens(hive, second)


# who does not


async def test_a_model_that_aborts_in_the_loader_fails_once(tmp_path: Path) -> None:
    async with operators_hive(tmp_path / "home", env=_misbehaving("aborts", **_AT_ONCE)) as hive:
        answer = await hive.send("POST", "/v1/workers/spawn?wait=ready", {"model": "storyteller"})

        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "MODEL_INVALID")
        assert "SIGABRT" in answer.json()["error"]["message"]
        await anyio.sleep(1)
        assert [(worker["state"], worker["restart_count"]) for worker in await hive.workers()] == [("failed", 0)]
        assert (await hive.send("GET", "/health", token=None)).status_code == 200


async def test_ports_that_are_all_taken_are_told_as_a_range_and_not_tried_again(tmp_path: Path) -> None:
    first = 65_530
    with ExitStack() as held:
        for port in range(first, 65_536):
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen()
        async with operators_hive(tmp_path / "home", env=_AT_ONCE) as hive:
            order = {"model": "storyteller", "port_hint": first}
            answer = await hive.send("POST", "/v1/workers/spawn?wait=ready", order)

            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "NO_CAPACITY")
            assert "65530 to 65535" in answer.json()["error"]["message"]
            await anyio.sleep(0.5)
            assert [(worker["state"], worker["restart_count"]) for worker in await hive.workers()] == [("failed", 0)]


@pytest.fixture
def small_group() -> Generator[Path]:
    """A control group of the kernel that allows 400 MB."""
    limits = ("memory.max", "memory.limit_in_bytes")
    parents = [group for group in groups_of() for limit in limits if (group / limit).exists()]
    if os.getuid() != 0 or not parents:
        pytest.skip("needs root and a memory control group")
    group = parents[0] / f"rbee-test-{secrets.token_hex(4)}"
    try:
        group.mkdir()
        limit = next(group / name for name in limits if (group / name).exists())
        limit.write_text(str(400_000_000))
    except (OSError, StopIteration) as error:
        pytest.skip(f"cannot make a memory control group here: {error}")
    yield group
    for pid in (group / "cgroup.procs").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    group.rmdir()


async def test_a_worker_that_the_kernel_ended_for_lack_of_memory_is_told_so_and_stays_dead(
    tmp_path: Path, small_group: Path
) -> None:
    env = _misbehaving("eats-memory", RBEE_CLOCK_HEARTBEAT_S="0.2", **_AT_ONCE)
    async with operators_hive(tmp_path / "home", env=env) as hive:
        killed_by_hand = await _idle_record(hive)
        record = await _idle_record(hive)
        for worker in (record, killed_by_hand):
            (small_group / "cgroup.procs").write_text(str(worker["pid"]))
        await anyio.sleep(1)
        os.kill(killed_by_hand["pid"], signal.SIGKILL)
        await _until(hive, killed_by_hand["id"], _is("idle", 1))
        os.kill(record["pid"], signal.SIGUSR1)

        failed = await _until(hive, record["id"], lambda record: record["state"] == "failed")

        assert failed["error"]["code"] == "INSUFFICIENT_MEMORY"
        assert "the kernel ended the worker for lack of memory" in failed["error"]["message"]
        assert failed["error"]["details"]["oom_kills"] == 1
        assert small_group.name in failed["error"]["details"]["counted_in"]
        assert failed["error"]["details"]["resident_bytes"] > 10_000_000
        assert failed["restart_count"] == 0
        await _idle_record(hive)


# what the dead leave behind


async def _left_behind(hive: LiveHive, pid: int, *, known: Collection[int] = ()) -> int:
    """The process that the worker of that pid leaves as it dies; not one of the `known`."""
    os.kill(pid, signal.SIGUSR1)
    with anyio.fail_after(10):
        while True:
            for process in psutil.process_iter():
                with suppress(psutil.Error):
                    marked = process.environ().get("RBEE_TEST_MISBEHAVIOUR") and process.environ().get("RBEE_WORKER_ID")
                    if marked and process.pid not in {pid, *known} and process.environ()["RBEE_HOME"] == str(hive.home):
                        return process.pid
            await anyio.sleep(0.01)


async def _said(hive: LiveHive, action: str, *, starts: int) -> list[dict[str, Any]]:
    """What the hive has narrated under that name until its worker was ready for the `starts`-th time."""
    found: list[dict[str, Any]] = []
    splitter = FrameSplitter()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with anyio.fail_after(_SOON_S):
        async with hive.client.stream("GET", f"{hive.url}/v1/events", headers=headers) as stream:
            async for chunk in stream.aiter_raw():
                found += [frame.json() for frame in splitter.feed(chunk)]
                if sum(line["action"] == "ready" for line in found) >= starts:
                    break
    return [line for line in found if line["action"] == action]


async def test_what_a_dead_worker_leaves_behind_is_named_and_holds_up_nobody_for_long(tmp_path: Path) -> None:
    env = _misbehaving("leaves", RBEE_CLOCK_MEMORY_BACK_S="0.5", **_AT_ONCE)
    async with operators_hive(tmp_path / "home", env=env) as hive:
        record = await _idle_record(hive)
        holder = await _left_behind(hive, record["pid"])
        try:
            await _until(hive, record["id"], _is("idle", 1))
            (told,) = await _said(hive, "memory_not_released", starts=2)
        finally:
            os.kill(holder, signal.SIGKILL)

    assert (told["level"], told["details"]["code"]) == ("error", "MEMORY_NOT_RELEASED")
    assert [held["pid"] for held in told["details"]["holders"]] == [holder], (
        "not the next process, which lives by right"
    )
    assert f"pid {holder}" in told["human"]


async def test_what_goes_within_the_time_is_waited_for_and_not_worth_a_word(tmp_path: Path) -> None:
    env = _misbehaving("leaves", RBEE_CLOCK_MEMORY_BACK_S="30", **_AT_ONCE)
    async with operators_hive(tmp_path / "home", env=env) as hive:
        record = await _idle_record(hive)
        holder = await _left_behind(hive, record["pid"])
        await anyio.sleep(1)
        waiting = await hive.worker(record["id"])
        assert (waiting["state"], waiting["pid"]) == ("starting", None), "the next one needs that memory"
        os.kill(holder, signal.SIGKILL)

        await _until(hive, record["id"], _is("idle", 1))
        assert await _said(hive, "memory_not_released", starts=2) == []


async def test_when_it_ended_is_known_while_what_it_left_is_still_looked_at(tmp_path: Path) -> None:
    env = _misbehaving("leaves", RBEE_CLOCK_MEMORY_BACK_S="2", **_AT_ONCE)
    holders: list[int] = []
    async with operators_hive(tmp_path / "home", env=env) as hive:
        record = await _idle_record(hive)
        try:
            for restarts in (1, 2, 3):
                holders.append(await _left_behind(hive, record["pid"], known=holders))
                record = await _until(hive, record["id"], _is("idle", restarts))
            holders.append(await _left_behind(hive, record["pid"], known=holders))

            failed = await _until(hive, record["id"], _is("failed", 3))

            assert failed["ended_at"] > failed["started_at"]
        finally:
            for holder in holders:
                os.kill(holder, signal.SIGKILL)


async def test_a_stop_ends_the_wait_for_what_was_left_behind(tmp_path: Path) -> None:
    env = _misbehaving("leaves", RBEE_CLOCK_MEMORY_BACK_S="600", **_AT_ONCE)
    async with operators_hive(tmp_path / "home", env=env) as hive:
        record = await _idle_record(hive)
        holder = await _left_behind(hive, record["pid"])
        try:
            await _until(hive, record["id"], _is("starting", 1))
            with anyio.fail_after(10):
                stopped = (await hive.send("POST", f"/v1/workers/{record['id']}/stop")).json()
        finally:
            os.kill(holder, signal.SIGKILL)
    assert stopped["state"] == "stopped"


# orders in the meantime


@pytest.fixture
async def crashed(tmp_path: Path) -> AsyncGenerator[tuple[LiveHive, dict[str, Any]]]:
    """A hive with a worker that waits for its next process, long."""
    async with operators_hive(tmp_path / "home", env=_NEVER) as hive:
        record = await _idle_record(hive)
        os.kill(record["pid"], signal.SIGKILL)
        yield hive, await _until(hive, record["id"], _is("starting", 1), within_s=2)


@pytest.mark.parametrize("path", ["/v1/workers/{id}/stop", "/v1/workers/stop-all"])
async def test_a_stop_ends_the_wait_for_the_next_process_at_once(
    crashed: tuple[LiveHive, dict[str, Any]], path: str
) -> None:
    hive, record = crashed
    with anyio.fail_after(3):
        answer = await hive.send("POST", path.format(id=record["id"]))

    told = answer.json()
    told = told["workers"][0] if "workers" in told else told
    assert (told["state"], told["memory"], told["error"]) == ("stopped", None, None)
    stopped = await hive.worker(record["id"])
    assert (stopped["state"], stopped["pid"], stopped["restart_count"]) == ("stopped", None, 1)
    assert (await hive.send("GET", "/health", token=None)).json()["workers"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_hive_told_to_go_does_not_wait_for_a_worker_that_waits(
    crashed: tuple[LiveHive, dict[str, Any]], number: signal.Signals
) -> None:
    hive, _ = crashed
    hive.process.send_signal(number)

    assert await hive.exit_code(within_s=5) == 0


async def test_a_waiting_worker_hears_nobody(crashed: tuple[LiveHive, dict[str, Any]]) -> None:
    hive, record = crashed
    beat = {"worker_id": record["id"], "state": "idle"}
    ready = {"worker_id": record["id"], "url": "http://127.0.0.1:9", "model_ref": "m", "backend": "cpu", "device": 0}

    for token in (record["api_key"], "the dead process's"):
        await hive.send("POST", "/v1/heartbeat/workers", beat, token=token)
        await hive.send("POST", "/v1/workers/ready", ready, token=token)

    assert _is("starting", 1)(await hive.worker(record["id"]))


# races


async def test_a_hundred_orders_with_one_request_id_are_one_worker(tmp_path: Path) -> None:
    async with operators_hive(tmp_path / "home") as hive:
        ids: set[str] = set()

        async def spawn() -> None:
            answer = await hive.send("POST", "/v1/workers/spawn", {"model": "storyteller", "request_id": "r"})
            ids.add(answer.json()["worker_id"])

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(spawn)

        assert len(ids) == 1
        assert [worker["id"] for worker in await hive.workers()] == [*ids]


@pytest.mark.parametrize("end", ["crash", "stop"])
async def test_callbacks_that_race_with_the_end_of_their_process_change_nothing(tmp_path: Path, end: str) -> None:
    async with operators_hive(tmp_path / "home", env=_AT_ONCE) as hive:
        record = await _idle_record(hive)
        facts = {"url": record["url"], "model_ref": "m", "backend": "cpu", "device": 0, "state": "idle"}
        statuses: set[int] = set()
        over = anyio.Event()

        async def call(path: str) -> None:
            while not over.is_set():
                body = {**facts, "worker_id": record["id"]}
                answer = await hive.send("POST", path, body, token=record["api_key"])
                statuses.add(answer.status_code)

        async with anyio.create_task_group() as group:
            for path in ("/v1/workers/ready", "/v1/heartbeat/workers"):
                group.start_soon(call, path)
            await anyio.sleep(0.2)
            if end == "crash":
                os.kill(record["pid"], signal.SIGKILL)
                after = await _until(hive, record["id"], _is("idle", 1))
            else:
                await hive.send("POST", f"/v1/workers/{record['id']}/stop")
                after = await hive.worker(record["id"])
            await anyio.sleep(0.2)
            over.set()

        assert statuses == {200, 401 if end == "crash" else 403}
        assert after["pid"] != record["pid"] or after["state"] == "stopped"
        assert (await hive.worker(record["id"]))["state"] == after["state"]


# whose orders


async def test_orders_of_a_queen_that_was_replaced_are_refused(tmp_path: Path) -> None:
    async with queens_side() as side, operators_hive(tmp_path / "home") as hive:
        side.epoch = 7
        assert (await hive.send("POST", "/v1/adopt", {"queen_url": side.url, "epoch": 7})).status_code == 200
        await side.heard(1)

        async def code(method: str, path: str, epoch: str) -> str | None:
            headers = {"Authorization": f"Bearer {TOKEN}", "X-Rbee-Epoch": epoch}
            answer = await hive.client.request(method, hive.url + path, json={}, headers=headers)
            return (answer.json().get("error") or {}).get("code")

        orders = ["/v1/workers/spawn", "/workers/start", "/v1/workers/x/stop", "/v1/workers/stop-all", "/shutdown"]
        orders += ["/v1/shutdown", "/v1/models/import"]
        for path in orders:
            assert await code("POST", path, "6") == "STALE_EPOCH", path
            assert await code("POST", path, "six") == "INVALID_REQUEST", path
        for epoch in ("7", "8"):
            assert await code("POST", "/v1/workers/x/stop", epoch) == "WORKER_NOT_FOUND"
        assert await code("GET", "/v1/workers/list", "6") is None
        late = await hive.send("POST", "/v1/adopt", {"queen_url": side.url, "epoch": 6})
        assert (late.status_code, late.json()["error"]["code"]) == (409, "STALE_EPOCH")
        assert (await hive.send("POST", "/v1/adopt", {"queen_url": side.url, "epoch": 8})).status_code == 200
        assert hive.process.poll() is None

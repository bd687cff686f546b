"""Services that were on stay on: warm workers, the API in its three forms, resumed streams, cancel, the queue."""

import json
import time
from collections.abc import Generator

import httpx2
import pytest
from tests.support.cluster import Cluster, frames_of, wait_until


@pytest.fixture
def queen(cluster: Cluster) -> Generator[Cluster]:
    """A queen that an operator started."""
    cluster.standing_queen()
    yield cluster
    stop = cluster.keeper("queen", "stop")
    assert stop.wait() == 0, stop.stderr


def test_a_warm_worker_is_reused_and_everything_stays_until_the_queen_is_stopped(queen: Cluster) -> None:
    first = queen.keeper("infer", "hello", "--json")
    second = queen.keeper("infer", "hello", "--json")

    ends = [json.loads(run.stdout.splitlines()[-1]) for run in (first, second)]
    assert [end["receipt"]["decision"] for end in ends] == ["start_worker", "use_worker"]
    assert ends[0]["receipt"]["worker_id"] == ends[1]["receipt"]["worker_id"]
    assert "waking" not in second.stdout
    queen.seen_alive("queen-rbee", "rbee-hive", "llm-worker-rbee")
    with queen.http() as http:
        (worker,) = http.get("/v2/workers").json()["workers"]
        (node,) = http.get("/v2/nodes").json()["nodes"]
    assert (worker["state"], worker["slots_total"], worker["slots_available"]) == ("idle", 4, 4)
    assert "api_key" not in worker
    assert (node["name"], node["state"], node["workers"]) == ("localhost", "online", 1)


def test_a_task_in_its_three_forms(queen: Cluster) -> None:
    task = {"prompt": "write a short story", "seed": 5}
    with queen.http(token=False) as http:
        accepted = http.post("/v2/tasks", json=task)
        body = accepted.json()
        assert (accepted.status_code, body["status"] in {"queued", "preparing"}) == (202, True)
        assert body["task_id"] == body["job_id"]
        followed = frames_of(http.get(body["events_url"]).text)
        streamed = frames_of(http.post("/v2/tasks", json=task, headers={"Accept": "text/event-stream"}).text)
        forced = frames_of(http.post("/jobs", json={**task, "stream": True}).text)
        whole = http.post("/v2/tasks", json={**task, "stream": False}).json()
        view = http.get(f"/v2/tasks/{body['task_id']}").json()

    texts = ["".join(f["t"] for f in frames if f["type"] == "token") for frames in (followed, streamed, forced)]
    assert {*texts, whole["text"]} == {texts[0]}
    assert len(texts[0]) > 150
    assert whole["status"] == view["status"] == "completed"
    for frames in (followed, streamed, forced):
        assert frames[-1]["type"] == "end"
        assert sum(f["type"] in {"end", "error"} for f in frames) == 1
        ids = [int(f["_id"]) for f in frames]
        assert ids == sorted(set(ids))


def test_a_stream_is_resumed_after_any_event_without_gap_or_repeat(queen: Cluster) -> None:
    with queen.http(token=False) as http:
        url = http.post("/v2/tasks", json={"prompt": "write a short story"}).json()["events_url"]
        whole = frames_of(http.get(url).text)
        for cut in range(0, len(whole), 7):
            rest = frames_of(http.get(url, headers={"Last-Event-ID": whole[cut]["_id"]}).text)
            assert whole[: cut + 1] + rest == whole
        beyond = http.get(url, headers={"Last-Event-ID": "99999"})
        garbage = http.get(url, headers={"Last-Event-ID": "abc"})

    assert (beyond.status_code, beyond.json()["error"]["code"]) == (410, "EVENTS_GONE")
    assert (garbage.status_code, garbage.json()["error"]["code"]) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("way", ["POST cancel", "DELETE", "hang up", "hang up while waiting for JSON"])
def test_cancelling_frees_the_worker_at_once(queen: Cluster, endless: str, way: str) -> None:
    task = {"prompt": "on and on", "model": endless, "max_tokens": 30000}
    with queen.http() as http:
        http.post("/v2/tasks", json={**task, "max_tokens": 1, "stream": False}).raise_for_status()
        if way == "hang up while waiting for JSON":
            with pytest.raises(httpx2.TimeoutException):
                http.post("/v2/tasks", json={**task, "stream": False}, timeout=0.3)
        else:
            _start_and_cancel(http, task, way)
        began_s = time.monotonic()
        after = http.post("/v2/tasks", json={**task, "max_tokens": 1, "stream": False}).json()
        newest = http.get("/v2/tasks").json()["tasks"]

    assert after["status"] == "completed"
    assert time.monotonic() - began_s < 10
    assert newest[1]["status"] == "cancelled"
    if way != "hang up while waiting for JSON":
        assert newest[1]["result"]["stop_reason"] == "CANCELLED"


def _start_and_cancel(http: httpx2.Client, task: dict[str, object], way: str) -> None:
    with http.stream("POST", "/v2/tasks", json={**task, "stream": True}) as response:
        task_id = response.headers["X-Rbee-Task-Id"]
        lines = response.iter_lines()
        while not next(lines).startswith("event: token"):
            pass
        if way == "POST cancel":
            assert http.post(f"/v2/tasks/{task_id}/cancel").json()["status"] == "cancelled"
            assert http.post(f"/v2/tasks/{task_id}/cancel").status_code == 200, "idempotent"
        elif way == "DELETE":
            assert http.delete(f"/v2/tasks/{task_id}").json()["status"] == "cancelled"


def test_tasks_wait_first_in_first_out_and_are_told_their_place(cluster: Cluster, endless: str) -> None:
    cluster.env |= {"RBEE_WORKER_SLOTS": "1"}
    cluster.standing_queen()

    def finished(http: httpx2.Client, ids: list[str]) -> list[int]:
        return [http.get(f"/v2/tasks/{id_}").json()["finished_at_ms"] or 0 for id_ in ids]

    with cluster.http() as http:
        task = {"prompt": "wait", "model": endless, "max_tokens": 300}
        ids = [http.post("/v2/tasks", json=task).json()["task_id"] for _ in range(6)]
        streams = [frames_of(http.get(f"/v2/tasks/{id_}/events").text) for id_ in ids]
        ends = finished(http, ids)

    assert ends == sorted(ends)
    assert all(frames[-1]["type"] == "end" for frames in streams)
    places = [[frame["position"] for frame in frames if frame["type"] == "queued"] for frames in streams]
    assert places[0] == []
    assert places[5][-1] == 1
    assert places[5] == sorted(places[5], reverse=True)
    assert cluster.keeper("queen", "stop").wait() == 0


def test_as_many_tasks_run_at_once_as_the_worker_has_slots(queen: Cluster, endless: str) -> None:
    task = {"prompt": "wait", "model": endless, "max_tokens": 600}
    with queen.http() as http:
        http.post("/v2/tasks", json={**task, "max_tokens": 1, "stream": False}).raise_for_status()
        ids = [http.post("/v2/tasks", json=task).json()["task_id"] for _ in range(4)]
        most_at_once = 0
        while {http.get(f"/v2/tasks/{id_}").json()["status"] for id_ in ids} != {"completed"}:
            (worker,) = http.get("/v2/workers").json()["workers"]
            most_at_once = max(most_at_once, worker["slots_total"] - worker["slots_available"])
        streams = [frames_of(http.get(f"/v2/tasks/{id_}/events").text) for id_ in ids]

    assert most_at_once == 4
    for frames in streams:
        tokens = [frame for frame in frames if frame["type"] == "token"]
        assert [token["i"] for token in tokens] == list(range(len(tokens)))
        assert frames[-1]["tokens_out"] == 600


def test_a_full_queue_refuses_and_says_when_to_come_back(cluster: Cluster, endless: str) -> None:
    cluster.env |= {"RBEE_QUEEN_QUEUE_PER_MODEL": "2"}
    cluster.standing_queen()
    with cluster.http() as http:
        http.post("/v2/tasks", json={"prompt": "x", "model": endless, "max_tokens": 1, "stream": False})
        answers = [http.post("/v2/tasks", json={"prompt": "x", "model": endless, "max_tokens": 1500}) for _ in range(6)]

    refused = [answer for answer in answers if answer.status_code != 202]
    assert refused
    assert {(a.status_code, a.json()["error"]["code"], a.headers["Retry-After"]) for a in refused} == {
        (429, "QUEUE_FULL", "5")
    }
    assert cluster.keeper("queen", "stop").wait() == 0


def test_a_keeper_that_meets_a_queen_who_goes_waits_and_wakes_a_new_one(cluster: Cluster) -> None:
    first = cluster.start("rbee-keeper", "infer", "hello")
    first.wait_for("shutting down hives")
    second = cluster.keeper("infer", "hello")

    assert (first.wait(), second.wait()) == (0, 0), second.stderr
    assert len(second.stdout) > 10


def test_idle_workers_are_stopped_after_their_time(cluster: Cluster) -> None:
    cluster.env |= {"RBEE_CLOCK_IDLE_WORKER_S": "1"}
    cluster.standing_queen()
    cluster.keeper("infer", "hello")
    cluster.seen_alive("llm-worker-rbee")

    cluster.all_gone(20, "llm-worker-rbee")

    cluster.seen_alive("rbee-hive", "queen-rbee")
    with cluster.http() as http:
        wait_until(lambda: http.get("/v2/workers").json()["workers"] == [], 10, "the queen has forgotten it")
    assert cluster.keeper("infer", "hello").wait() == 0
    assert cluster.keeper("queen", "stop").wait() == 0

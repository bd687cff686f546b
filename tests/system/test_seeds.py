"""Every request body of the seed documents, verbatim, at the address that the seed names.

What a seed asks for and this version or this machine does not have is refused by the code that docs/protocol.md names:
never a route that nobody knows, never a fault in the body. DESIGN §3 says where seeds are superseded.
"""

import json
import sqlite3
from collections.abc import Generator

import pytest
from tests.support.cluster import frames_of
from tests.support.seed_lab import MODELS, SeedLab, seed_lab

HF_001 = "hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF"
# seed 001, phase 1
TASK_001 = """{
  "node": "mac",
  "model": "hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF",
  "prompt": "write a short story",
  "max_tokens": 20,
  "temperature": 0.7
}"""
# seed 001, phase 4
SPAWN_001 = """{
  "model": "hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF",
  "backend": "metal",
  "device": 0
}"""
# seed 001, phase 5
SELECT_001 = """SELECT local_path FROM models
WHERE reference = 'TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF' AND provider = 'hf';"""
# seed 001, phase 7
INSERT_001 = """INSERT INTO models (id, provider, reference, local_path, size_bytes, downloaded_at_unix)
VALUES ('tinyllama-q4', 'hf', 'TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF',
        '/models/tinyllama-q4.gguf', 5242880, 1728508603);"""
# seeds 001, phase 9, and 003, step 9
READY_001 = """{
  "worker_id": "worker-abc123",
  "url": "http://mac.home.arpa:8001",
  "model_ref": "hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF",
  "backend": "metal",
  "device": 0
}"""
# seed 004, phases 2, 7, 8, 9, 10
JOB_004 = '{"model_ref": "HF:author/minillama", "prompt": "hello"}'
PROVISION_004 = '{"model_ref": "HF:author/minillama"}'
BUILD_004 = '{"kind": "cuda-llm-worker-rbee"}'
START_004 = '{"device": "gpu1", "model_ref": "HF:author/minillama", "port_hint": 8601}'
WORKER_BEAT_004 = '{"worker_id": "...", "state": "Ready"}'
HIVE_BEAT_004 = '{"hive_id": "...", "workers": [...]}'


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Generator[SeedLab]:
    with seed_lab(tmp_path_factory.mktemp("seeds") / "home") as lab:
        yield lab


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        pytest.param("/v2/tasks", TASK_001, 404, "NODE_NOT_FOUND", id="001 hf: from mac"),
        pytest.param("/v2/tasks", TASK_001.replace(HF_001, "tinyllama"), 404, "NODE_NOT_FOUND", id="001 mac"),
    ],
)
def test_tasks_that_cannot_run_here(lab: SeedLab, path: str, body: str, status: int, code: str) -> None:
    with lab.queen(token=False) as http:
        answer = http.post(path, content=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_job_of_seed_004_as_it_stands_wants_the_hub(lab: SeedLab) -> None:
    with lab.queen(token=False) as http:
        job = http.post("/jobs", content=JOB_004).json()
        last = frames_of(http.get(job["events_url"]).text)[-1]

    assert (last["type"], last["code"]) == ("error", "DOWNLOAD_FAILED")


def test_a_job_of_seed_004_and_its_events(lab: SeedLab) -> None:
    with lab.queen(token=False) as http:
        job = http.post("/jobs", content=JOB_004.replace("HF:author/minillama", "tinyllama")).json()
        events = http.get(job["events_url"]).text
        by_second_name = http.get(f"/jobs/{job['job_id']}/events").text

    assert job["events_url"] == f"/jobs/{job['job_id']}/events"
    assert events.endswith("data: [DONE]\n\n")
    assert by_second_name == events
    frames = frames_of(events)
    started, end = (next(frame for frame in frames if frame["type"] == type_) for type_ in ("started", "end"))
    tokens = [frame for frame in frames if frame["type"] == "token"]
    # seed 002: {"type":"started","job_id":…,"model":…,"started_at":…}, {"type":"token","t":…,"i":…}, {"type":"end",…}
    assert {"type", "job_id", "model", "started_at"} <= set(started)
    assert [(set(token), token["i"]) for token in tokens] == [
        ({"type", "t", "i", "ids", "_id"}, i) for i in range(len(tokens))
    ]
    assert {"type", "tokens_out", "decode_time_ms", "stop_reason"} <= set(end)
    # seed 001, phase 13: narration in between
    narrated = [frame for frame in frames if frame["type"] == "narration"]
    assert all({"actor", "action", "human", "cute"} <= set(frame) for frame in narrated)


def test_the_cluster_s_events_under_both_names(lab: SeedLab) -> None:
    for path in ("/events", "/v2/events"):
        with lab.queen() as http, http.stream("GET", path, headers={"Last-Event-ID": "0"}) as stream:
            assert (stream.status_code, stream.headers["content-type"].split(";")[0]) == (200, "text/event-stream")
            assert "queen is awake" in next(line for line in stream.iter_lines() if line.startswith("data:"))


def test_health_of_queen_and_hive_has_what_seed_002_shows(lab: SeedLab) -> None:
    with lab.queen(token=False) as queen, lab.hive() as hive:
        queen_s, hive_s = queen.get("/health").json(), hive.get("/health").json()

    assert {"status": "healthy", "pools": 1, "queue_depth": 0}.items() <= queen_s.items()
    assert isinstance(queen_s["workers"], int)
    assert {"status": "healthy", "gpus": 0}.items() <= hive_s.items()
    assert isinstance(hive_s["workers"], int)


def test_devices_in_the_shape_of_seed_004(lab: SeedLab) -> None:
    with lab.hive() as http:
        devices = http.get("/devices").json()

    assert set(devices) >= {"cpu", "gpus", "models", "workers"}
    assert devices["cpu"]["cores"] >= 1
    assert devices["cpu"]["ram_gb"] == pytest.approx(devices["cpu"]["ram_bytes"] / 1e9, abs=0.05)
    assert devices["models"] >= len(MODELS) + 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        pytest.param("POST", "/v1/workers/spawn", SPAWN_001, 404, "MODEL_NOT_FOUND", id="001 spawn"),
        pytest.param("POST", "/workers/start", START_004, 404, "MODEL_NOT_FOUND", id="004 start"),
        pytest.param(
            "POST",
            "/v1/workers/spawn",
            SPAWN_001.replace(HF_001, "tinyllama"),
            503,
            "BACKEND_UNAVAILABLE",
            id="001 metal",
        ),
        pytest.param(
            "POST",
            "/workers/start",
            START_004.replace("HF:author/minillama", "tinyllama"),
            503,
            "BACKEND_UNAVAILABLE",
            id="004 gpu1",
        ),
        pytest.param(
            "GET", "/capacity?device=gpu1&model=HF:author/minillama", None, 503, "BACKEND_UNAVAILABLE", id="004"
        ),
        pytest.param("GET", "/capacity?device=gpu1&model=tinyllama", None, 503, "BACKEND_UNAVAILABLE", id="004 room"),
        pytest.param("GET", "/models/provision/uuid/events", None, 404, "NOT_FOUND", id="004 unknown events"),
    ],
)
def test_orders_that_this_hive_cannot_follow(
    lab: SeedLab, method: str, path: str, body: str | None, status: int, code: str
) -> None:
    with lab.hive() as http:
        answer = http.request(method, path, content=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [("/models/provision", PROVISION_004, "DOWNLOAD_FAILED"), ("/workers/provision", BUILD_004, "BUILD_FAILED")],
)
def test_provisions_of_seed_004_are_taken_and_say_what_is_missing(
    lab: SeedLab, path: str, body: str, code: str
) -> None:
    with lab.hive() as http:
        taken = http.post(path, content=body)
        last = frames_of(http.get(taken.json()["events_url"], timeout=60).text)[-1]

    assert taken.status_code == 202
    assert (last["type"], last["code"]) == ("error", code)
    assert last["hint"]


def test_orders_that_this_hive_follows(lab: SeedLab) -> None:
    start = json.loads(START_004) | {"device": "cpu", "model_ref": "mistral"}
    with lab.hive() as http:
        room = http.get("/capacity?device=cpu&model=tinyllama")
        started = http.post("/workers/start", content=json.dumps(start))
        worker_id = started.json()["worker_id"]
        listed = http.get("/v1/workers/list").json()["workers"]
        stopped = http.post(f"/v1/workers/{worker_id}/stop")

    assert room.status_code == 204
    assert (started.status_code, started.json()["state"]) == (202, "starting")
    assert worker_id in {worker["id"] for worker in listed}
    assert (stopped.status_code, stopped.json()["state"]) == (200, "stopped")


def test_workers_report_as_the_seeds_have_it(lab: SeedLab) -> None:
    worker = lab.ready_worker()
    with lab.hive(worker["api_key"]) as http:
        strangers = [
            http.post("/v1/workers/ready", content=READY_001),
            http.post("/heartbeat/workers", content=WORKER_BEAT_004),
        ]
        its_own = [
            http.post("/v1/workers/ready", content=READY_001.replace("worker-abc123", worker["id"])),
            http.post("/heartbeat/workers", content=WORKER_BEAT_004.replace("...", worker["id"])),
        ]
    with lab.queen() as http:
        to_the_queen = http.post("/v1/orchestrator/worker-ready", content=READY_001)

    assert {(a.status_code, a.json()["error"]["code"]) for a in strangers} == {(403, "FORBIDDEN")}
    assert [(a.status_code, a.json()) for a in its_own] == [(200, {"status": "ok"})] * 2
    assert (to_the_queen.status_code, to_the_queen.json()) == (200, {"status": "unknown"})


def test_a_hive_that_reports_as_seed_004_has_it(lab: SeedLab) -> None:
    """No name and no address: enough for a hive that the queen knows, nothing for one that she does not."""
    worker = lab.ready_worker()
    with lab.hive() as http:
        hive_id = http.get("/health").json()["instance"]
        workers = json.dumps(http.get("/v1/workers/list").json()["workers"])
    known = HIVE_BEAT_004.replace('"..."', f'"{hive_id}"').replace("[...]", workers)
    unknown = HIVE_BEAT_004.replace("[...]", "[]")
    with lab.queen() as http:
        answers = [http.post(path, content=known).json() for path in ("/heartbeat", "/v1/heartbeat")]
        stranger = http.post("/heartbeat", content=unknown)
        nodes, listed = http.get("/v2/nodes").json()["nodes"], http.get("/v2/workers").json()["workers"]

    assert [answer["adopted"] for answer in answers] == [True, True]
    assert (stranger.status_code, stranger.json()["adopted"]) == (200, False)
    assert [(node["name"], node["url"]) for node in nodes] == [("localhost", lab.hive_url)]
    assert nodes[0]["version"]
    assert worker["id"] in {view["id"] for view in listed}


def test_the_sql_of_seed_001_fits_the_catalog(lab: SeedLab) -> None:
    database = sqlite3.connect(lab.cluster.home / "models.db", isolation_level=None)
    try:
        assert database.execute(SELECT_001).fetchall() == []
        database.execute(INSERT_001)
        assert database.execute(SELECT_001).fetchall() == [("/models/tinyllama-q4.gguf",)]
        with lab.hive() as http:
            row = http.get("/v1/models/tinyllama-q4").json()
            on_metal = http.post("/v1/workers/spawn", content=SPAWN_001).json()["error"]
    finally:
        database.execute("DELETE FROM models WHERE id = 'tinyllama-q4'")
        database.close()

    assert (row["size_bytes"], row["downloaded_at_unix"]) == (5242880, 1728508603)
    assert on_metal["code"] == "BACKEND_UNAVAILABLE"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/plan"),
        ("GET", "/v2/sessions/one"),
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
    ],
)
def test_routes_that_are_planned_say_so(lab: SeedLab, method: str, path: str) -> None:
    with lab.queen() as http:
        planned, unknown = http.request(method, path), http.request(method, "/v2/nothing")

    assert (planned.status_code, planned.json()["error"]["code"]) == (400, "NOT_SUPPORTED")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "NOT_FOUND")


def test_only_the_queen_describes_her_routes(lab: SeedLab) -> None:
    with lab.queen(token=False) as queen, lab.hive() as hive:
        described = queen.get("/openapi.json")
        rebound = queen.get("/openapi.json", headers={"Host": "evil.example"})
        hidden = hive.get("/openapi.json")

    assert "/v2/tasks" in described.json()["paths"]
    assert (rebound.status_code, hidden.status_code) == (403, 404)

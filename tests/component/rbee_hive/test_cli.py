"""The hive's command line beside a real hive, beside a scripted one that misbehaves, and its downloads either way."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from tests.support.gguf_files import padded_model
from tests.support.hive import LiveHive, gone, operators_hive
from tests.support.hive_cli import HiveCli, Result, scripted_hive
from tests.support.hub import Hub, Mode, running_hub
from tests.support.models import storyteller
from tests.support.processes import wait_until

from rbee_shared.sse import DONE, encode

REPO = "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF"
FILE = "tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf"
ID = FILE.removesuffix(".gguf")
REF = f"hf:{REPO}"
MIB = 1024 * 1024
SLOW = Mode(bytes_per_s=2 * MIB)


@pytest.fixture
def hub(tmp_path: Path) -> Generator[Hub]:
    (tmp_path / "hub").mkdir()
    with running_hub(tmp_path / "hub") as hub:
        hub.add(REPO, {FILE: storyteller()})
        yield hub


@pytest.fixture
def cli(tmp_path: Path, hub: Hub) -> HiveCli:
    return HiveCli(tmp_path, {"HF_ENDPOINT": hub.url})


@pytest.fixture
async def hive(cli: HiveCli, hub: Hub) -> AsyncGenerator[LiveHive]:
    async with operators_hive(cli.home.root, env={"HF_ENDPOINT": hub.url}) as live:
        yield live


@pytest.fixture(params=["beside a hive", "on the files"])
async def either(request: pytest.FixtureRequest, cli: HiveCli, hub: Hub) -> AsyncGenerator[HiveCli]:
    """A home where a hive runs, and one where none does: a person sees no difference."""
    if request.param == "on the files":
        yield cli
        return
    async with operators_hive(cli.home.root, env={"HF_ENDPOINT": hub.url}):
        yield cli


async def in_thread(work: Any) -> Any:
    return await anyio.to_thread.run_sync(work)


# the same with and without a hive


async def test_a_model_is_downloaded_once(either: HiveCli, hub: Hub) -> None:
    first = await either.aprocess("models", "download", REF)
    row = (await either.aprocess("models", "show", ID, "--json")).json
    again = await either.aprocess("models", "download", REF, "--json")

    assert first.status == again.status == 0, first.err
    assert first.out == f"{ID} is here (4.2 MB, 4.2 MB fetched): {row['local_path']}\n"
    assert "model-provisioner: model size 4.2 MB" in first.err
    assert "downloading 100 % (4.2 MB / 4.2 MB" in first.err
    assert await anyio.Path(row["local_path"]).read_bytes() == storyteller()
    assert (again.json["bytes_fetched"], again.json["model"]["id"], len(hub.requests("cdn"))) == (0, ID, 1)


def test_a_registered_model_is_downloaded_by_its_id(cli: HiveCli) -> None:
    cli.run("models", "register", "--id", "tiny", "--name", "Tiny", "--repo", REPO)

    done = cli.process("models", "download", "tiny")

    assert done.status == 0, done.err
    listed = cli.run("models", "list", "--json").json["models"]
    assert [(row["id"], row["name"]) for row in listed if row["id"] != "storyteller"] == [("tiny", "Tiny")]


async def test_ctrl_c_keeps_what_was_fetched(either: HiveCli, hub: Hub) -> None:
    big = padded_model(size_bytes=12 * MIB)[0]
    hub.add(REPO, {FILE: big})
    hub.script.add(FILE, SLOW)
    process = await in_thread(lambda: either.start("models", "download", REF))
    await in_thread(lambda: wait_until(lambda: partial_bytes(either) > 2 * MIB, 60, "two MiB on the disk"))

    process.send_signal(signal.SIGINT)
    out, err = await in_thread(lambda: process.communicate(timeout=60))

    assert (process.returncode, out) == (130, b"")
    assert b"what was fetched is kept: the same command goes on from there" in err
    await in_thread(lambda: wait_until(lambda: not_growing(either), 60, "the download to stop"))
    kept = partial_bytes(either)
    assert kept > 2 * MIB
    hub.script.clear()
    end = (await either.aprocess("models", "download", REF, "--json")).json
    assert end["bytes_fetched"] <= len(big) - kept


def partial_bytes(cli: HiveCli) -> int:
    return sum(path.stat().st_size for path in cli.home.models.rglob("*.partial"))


def not_growing(cli: HiveCli) -> bool:
    before = partial_bytes(cli)
    time.sleep(0.5)
    return partial_bytes(cli) == before


async def test_a_terminal_shows_a_bar_with_rate_and_time_left(either: HiveCli, hub: Hub) -> None:
    hub.add(REPO, {FILE: padded_model(size_bytes=6 * MIB)[0]})
    hub.script.add(FILE, SLOW)

    def watched() -> tuple[int, str]:
        with either.terminal("models", "download", REF, columns=120) as terminal:
            return terminal.wait(), terminal.read()

    status, seen = await in_thread(watched)

    assert status == 0
    assert re.search(r"downloading .*━.* \d+ % \d.* MB / 6.3 MB, \d.* MB/s, \d.* s left", seen), seen
    assert "[model-provisioner] 📥 model size 6.3 MB" in seen


@pytest.mark.parametrize(
    ("mode", "status", "code"),
    [
        pytest.param(Mode(at="api", status=404, error_code="RepoNotFound"), 1, "MODEL_NOT_FOUND", id="nothing there"),
        pytest.param(Mode(corrupt_at=100), 1, "CHECKSUM_MISMATCH", id="wrong bytes"),
        pytest.param(Mode(status=404), 1, "MODEL_NOT_FOUND", id="the file is gone"),
    ],
)
def test_a_failed_download_says_why(cli: HiveCli, hub: Hub, mode: Mode, status: int, code: str) -> None:
    hub.script.add(REPO if mode.at == "api" else FILE, mode)

    failed = cli.process("models", "download", REF, "--json")

    assert (failed.status, failed.json["error"]["code"]) == (status, code)
    assert re.search(rf"^error: .* \({code}\)\n  next: .+\n", failed.err, re.MULTILINE), failed.err


def test_no_network_is_cannot_reach(cli: HiveCli) -> None:
    offline = cli.process("models", "download", REF, env={"HF_HUB_OFFLINE": "1"})

    assert (offline.status, offline.out, "(DOWNLOAD_FAILED)" in offline.err) == (3, "", True)


async def test_a_failure_in_the_hive_is_the_commands_failure(cli: HiveCli, hub: Hub, hive: LiveHive) -> None:
    hub.script.add(FILE, Mode(corrupt_at=100))

    failed = await cli.aprocess("models", "download", REF)

    assert (failed.status, failed.out, "(CHECKSUM_MISMATCH)" in failed.err) == (1, "", True), failed.err
    assert (await hive.send("GET", "/v1/models")).json()["models"][0]["id"] == "storyteller"


async def test_both_ways_say_the_same(cli: HiveCli, hub: Hub) -> None:
    commands = [("models", "catalog"), ("models", "show", "storyteller", "--json"), ("builds", "list", "--json")]
    async with operators_hive(cli.home.root, env={"HF_ENDPOINT": hub.url}):
        await cli.aprocess("models", "register", "--id", "tiny", "--repo", REPO, "--alias", "t")
        beside = [(await cli.aprocess(*command)).out for command in commands]
    alone = [(await cli.aprocess(*command)).out for command in commands]

    assert beside == alone


# workers of a real hive


async def test_a_workers_life(cli: HiveCli, hive: LiveHive) -> None:
    spawned = await cli.aprocess("worker", "spawn", "cpu", "--model", "storyteller", "--n-ctx", "256", "--slots", "2")
    assert spawned.status == 0, spawned.err
    worker = (await hive.workers())[0]
    assert spawned.out == f"{worker['id']} is idle at {worker['url']}\n"
    assert "hive: waking a cpu worker" in spawned.err
    assert "model-loader: model loaded" in spawned.err
    assert (worker["slots_total"], worker["device"]) == (2, "cpu")

    listed, document = await cli.aprocess("worker", "list"), await cli.aprocess("worker", "list", "--json")
    assert listed.out.splitlines()[0] == "Active Workers"
    assert listed.out.splitlines()[2].split() == ["ID", "Backend", "Model", "Port", "PID", "Status"]
    port = worker["url"].rpartition(":")[2]
    assert [worker["id"], "cpu", "storyteller", port, str(worker["pid"]), "idle"] in rows(listed)
    assert listed.out.splitlines()[-1] == "Total workers: 1"
    assert document.json["workers"][0]["id"] == worker["id"]
    assert worker["api_key"] not in document.out + listed.out

    status = await cli.aprocess("status")
    facts = await cli.aprocess("status", "--json")
    assert (status.status, facts.json["pid"], facts.json["url"]) == (0, hive.process.pid, hive.url)
    assert [worker["id"], "cpu", "storyteller", port, str(worker["pid"]), "idle"] in rows(status)
    assert worker["api_key"] not in status.out + facts.out

    stopped = await cli.aprocess("worker", "stop", worker["id"])
    assert (stopped.status, stopped.out.startswith(f"worker {worker['id']} is stopped")) == (0, True)
    assert await gone(worker["pid"], 5)
    assert (await cli.aprocess("worker", "list")).out.splitlines()[-1] == "Total workers: 0"
    assert (await cli.aprocess("worker", "stop", worker["id"] + "x")).status == 1


def rows(printed: Result) -> list[list[str]]:
    return [line.split() for line in printed.out.splitlines()]


async def test_all_workers_are_stopped_at_once(cli: HiveCli, hive: LiveHive) -> None:
    assert (await cli.aprocess("worker", "stop-all")).out == "no workers to stop\n"
    spawned = [await hive.spawn(), await hive.spawn()]

    stopped = await cli.aprocess("worker", "stop-all", "--json")

    assert {worker["worker_id"] for worker in stopped.json["workers"]} == {worker["worker_id"] for worker in spawned}
    assert [worker["state"] for worker in await hive.workers()] == ["stopped", "stopped"]


async def test_a_worker_that_cannot_be_is_refused(cli: HiveCli, hive: LiveHive) -> None:
    wrong: list[tuple[tuple[str, ...], int, str]] = [
        (("cpu", "--model", "nobody-has-this"), 1, "MODEL_NOT_FOUND"),
        (("cuda", "--model", "storyteller", "--gpu", "7"), 1, "BACKEND_UNAVAILABLE"),
        (("abacus", "--model", "storyteller"), 2, "INVALID_REQUEST"),
        (("cpu", "--model", "storyteller", "--slots", "0"), 2, "INVALID_REQUEST"),
    ]
    for args, status, code in wrong:
        refused = await cli.aprocess("worker", "spawn", *args)
        assert (refused.status, refused.out, f"({code})" in refused.err) == (status, "", True), refused.err
    assert await hive.workers() == []


async def test_a_model_in_use_keeps_its_files(cli: HiveCli, hive: LiveHive) -> None:
    path = cli.home.models / "mine.gguf"
    path.write_bytes(storyteller())
    await cli.aprocess("models", "import", str(path))
    await hive.spawn("mine")

    refused = await cli.aprocess("models", "remove", "mine", "--yes")

    assert (refused.status, path.exists(), "rbee-hive worker list" in refused.err) == (4, True, True)


# a hive that is not as it should be


async def test_a_killed_hive_is_none(cli: HiveCli, hive: LiveHive) -> None:
    hive.process.kill()
    await hive.exit_code()

    assert (await cli.aprocess("models", "list")).status == 0
    assert (await cli.aprocess("worker", "list")).status == 3


async def test_a_hive_that_hangs_is_not_waited_for_for_ever(cli: HiveCli, hive: LiveHive) -> None:
    hive.process.send_signal(signal.SIGSTOP)
    try:
        hung = await cli.aprocess(
            "models", "list", env={"RBEE_CLOCK_CONTROL_CALL_S": "1", "RBEE_CLOCK_SILENCE_S": "0.2"}
        )
    finally:
        hive.process.send_signal(signal.SIGCONT)

    assert (hung.status, "(REQUEST_TIMEOUT)" in hung.err) == (3, True)
    assert "still waiting for the model catalog" in hung.err


async def test_another_token_is_not_allowed(cli: HiveCli, hive: LiveHive) -> None:
    cli.home.token.write_text("another-token-0123456789")

    assert (await cli.aprocess("models", "list")).status == 4
    cli.home.token.chmod(0o644)
    assert (await cli.aprocess("worker", "list")).status == 4


def provisioning(*chunks: bytes, code: int = 200) -> FastAPI:
    """A hive whose only provision tells exactly this."""
    app = FastAPI()

    @app.post("/v1/models/provision", status_code=202)
    async def provision() -> dict[str, Any]:
        return {"provision_id": "p", "events_url": "/v1/provisions/p/events", "done": False}

    @app.get("/v1/provisions/p/events")
    async def events() -> Response:
        return Response(b"".join(chunks), status_code=code, media_type="text/event-stream")

    return app


EVIL = "\x1b[2J\x9b1m\x07\u202eevil\nline hf_abcdefghijklmnop"


@pytest.mark.parametrize(
    ("app", "status", "code"),
    [
        pytest.param(provisioning(), 3, "STREAM_TRUNCATED", id="it says nothing"),
        pytest.param(provisioning(DONE), 3, "STREAM_TRUNCATED", id="it ends without an end"),
        pytest.param(provisioning(b"event: end\ndata: {}garbage\n\n"), 3, "BAD_PEER", id="it ends with garbage"),
        pytest.param(provisioning(encode("end", {"model": 7})), 3, "BAD_PEER", id="its end is none of ours"),
        pytest.param(provisioning(b"data: [1]\n\n"), 3, "BAD_PEER", id="an event is no object"),
        pytest.param(provisioning(b"oops", code=500), 3, "BAD_PEER", id="it is broken"),
        pytest.param(
            provisioning(encode("error", {"code": "DISK_FULL", "message": EVIL, "hint": EVIL})), 5, "DISK_FULL",
            id="it tells an error that would steer the terminal",
        ),
        pytest.param(
            provisioning(encode("error", {"code": "FROM_THE_FUTURE", "message": "m"})), 3, "BAD_PEER",
            id="it tells an error of a newer version",
        ),
    ],
)  # fmt: skip
async def test_what_a_hive_may_do_wrong(cli: HiveCli, app: FastAPI, status: int, code: str) -> None:
    async with scripted_hive(cli, app):
        failed = await cli.aprocess("models", "download", "x")

    assert (failed.status, f"({code})" in failed.err, failed.out) == (status, True, ""), failed.err
    assert "Traceback" not in failed.err
    assert not set("\x1b\x9b\x07\u202e") & set(failed.err)
    assert "hf_abcdefghijklmnop" not in failed.err


async def test_what_a_hive_tells_cannot_steer_a_terminal(cli: HiveCli) -> None:
    app = provisioning(
        encode("narration", {"actor": "hive", "action": "x", "human": EVIL, "cute": "\x1b[31m"}),
        encode("progress", {"stage": "download", "done": -5, "total": 0, "unit": EVIL, "per_s": 1e300, "eta_s": -1}),
        encode("progress", {"stage": EVIL, "done": "x"}),
        encode("of-a-newer-version", {"x": 1}),
        encode("end", {"model": {"id": EVIL, "provider": "file", "reference": EVIL, "local_path": EVIL}}),
    )
    async with scripted_hive(cli, app):
        piped = await cli.aprocess("models", "download", "x")

        def watched() -> tuple[int, str]:
            with cli.terminal("models", "download", "x", columns=120) as terminal:
                terminal.wait()
                return terminal.process.returncode, terminal.raw

        status, raw = await in_thread(watched)

    assert (piped.status, status, "evil" in piped.out) == (0, 0, True)
    assert not set("\x1b\x9b\x07\u202e") & set(piped.err + piped.out)
    assert "\x1b[2J" not in raw
    assert not set("\x9b\x07\u202e") & set(raw)


async def test_ctrl_c_while_a_worker_loads_stops_that_worker(cli: HiveCli) -> None:
    app, waits, stopped = FastAPI(), anyio.Event(), anyio.Event()

    @app.post("/v1/workers/spawn")
    async def spawn(wait: str | None = None) -> dict[str, Any]:
        if wait:
            waits.set()
            await anyio.sleep_forever()
        return {"worker_id": "worker-cpu-1", "state": "starting"}

    @app.get("/v1/workers/list")
    async def listed() -> dict[str, Any]:
        return {"workers": []}

    @app.post("/v1/workers/worker-cpu-1/stop")
    async def stop() -> dict[str, Any]:
        stopped.set()
        return {"worker_id": "worker-cpu-1", "state": "stopped"}

    cli.environment["RBEE_CLOCK_SILENCE_S"] = "0.2"
    async with scripted_hive(cli, app):
        process = await in_thread(lambda: cli.start("worker", "spawn", "cpu", "--model", "m"))
        assert process.stderr is not None
        line = await in_thread(process.stderr.readline)
        assert line.startswith(b"hive: still waiting for the worker to be ready")
        with anyio.fail_after(60):
            await waits.wait()

        process.send_signal(signal.SIGINT)
        _, err = await in_thread(lambda: process.communicate(timeout=60))

    assert (process.returncode, stopped.is_set()) == (130, True)
    assert b"stopping worker-cpu-1" in err


async def test_memory_that_did_not_come_back_is_an_error(cli: HiveCli) -> None:
    app = FastAPI()
    error = {"code": "MEMORY_NOT_RELEASED", "message": "1 GB is still held by python (pid 1)"}

    @app.post("/v1/workers/{worker_id}/stop")
    async def stop(worker_id: str) -> dict[str, Any]:
        return {"worker_id": worker_id, "state": "stopped", "memory": {"released": False}, "error": error}

    async with scripted_hive(cli, app):
        told, document = await cli.aprocess("worker", "stop", "w"), await cli.aprocess("worker", "stop", "w", "--json")

    assert (told.status, told.out, document.status) == (1, "worker w is stopped\n", 1)
    assert "error: 1 GB is still held by python (pid 1) (MEMORY_NOT_RELEASED)" in told.err
    assert document.json["error"]["code"] == "MEMORY_NOT_RELEASED", "one document, which says it"


async def test_names_of_workers_and_builds_stay_inside_their_route(cli: HiveCli) -> None:
    app, asked = FastAPI(), []

    @app.middleware("http")
    async def note(request: Request, _: Any) -> Response:
        asked.append(request.scope["raw_path"].decode())
        return JSONResponse({"error": {"code": "NOT_FOUND", "message": "no"}}, 404)

    async with scripted_hive(cli, app):
        for name in ("a/../../shutdown", "x?y=1#z", "%2e%2e"):
            assert (await cli.aprocess("worker", "stop", name)).status == 1
            assert (await cli.aprocess("builds", "remove", name)).status == 1

    assert asked[::2] == [
        "/v1/workers/a%2F..%2F..%2Fshutdown/stop", "/v1/workers/x%3Fy%3D1%23z/stop", "/v1/workers/%252e%252e/stop",
    ]  # fmt: skip
    assert all(path.startswith("/v1/builds/") for path in asked[1::2])


# the daemon is still what a command line without a command means


@pytest.mark.parametrize("args", [("--port", "0"), ("daemon", "--port", "0"), ("--name", "n", "--port=0")])
def test_no_command_is_the_daemon(cli: HiveCli, args: tuple[str, ...]) -> None:
    process = cli.start(*args, env={**cli.env(), "RBEE_HIVE_WORKER_PORT": "0"})
    run_file = cli.home.run_file("rbee-hive")
    try:
        wait_until(run_file.exists, 60, "the run file")
        assert json.loads(run_file.read_text())["pid"] == process.pid
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_the_daemon_explains_itself_with_and_without_its_name(cli: HiveCli) -> None:
    named, unnamed = cli.process("daemon", "--help"), cli.process("--port", "0", "--help")

    assert named.out == unnamed.out
    assert named.out.startswith("Usage: rbee-hive [daemon] [OPTIONS]")
    assert cli.process("--version").out.startswith("rbee-hive ")
    assert cli.process("--nonsense").status == 2


def test_the_daemons_start_loads_nothing_of_the_local_commands() -> None:
    loaded = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, timeout=60, check=True)

    assert loaded.stdout.split() == []


_LOADED = """
import sys, rbee_hive.cli
slow = ("rich", "pydantic", "rbee_hive.commands", "rbee_hive.local.session")
print(*(name for name in sys.modules if name.startswith(slow)))
"""

"""Starting a worker for a person who changes their mind, at whatever moment."""

import signal
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from fastapi import FastAPI, Request
from tests.support.hive_cli import HiveCli, scripted_hive

from rbee_hive.local.screen import Screen
from rbee_shared.errors import BadPeerError


@pytest.mark.parametrize("is_heard", [True, False], ids=["the order came through", "it never did"])
async def test_ctrl_c_before_the_hive_has_answered_stops_the_worker_of_that_request(
    tmp_path: Path, is_heard: bool
) -> None:
    cli, app = HiveCli(tmp_path), FastAPI()
    asked, stopped = anyio.Event(), anyio.Event()
    workers: dict[str, str] = {}

    @app.post("/v1/workers/spawn")
    async def spawn(request: Request) -> dict[str, Any]:
        request_id = (await request.json())["request_id"]
        if not asked.is_set():
            if is_heard:
                workers[request_id] = "worker-cpu-1"
            asked.set()
            await anyio.sleep_forever()
        return {"worker_id": workers.setdefault(request_id, "worker-cpu-2"), "state": "starting"}

    @app.post("/v1/workers/{worker_id}/stop")
    async def stop(worker_id: str) -> dict[str, Any]:
        assert list(workers.values()) == [worker_id]
        stopped.set()
        return {"worker_id": worker_id, "state": "stopped"}

    async with scripted_hive(cli, app):
        process = await anyio.to_thread.run_sync(lambda: cli.start("worker", "spawn", "cpu", "--model", "m"))
        with anyio.fail_after(30):
            await asked.wait()
        process.send_signal(signal.SIGINT)
        _, err = await anyio.to_thread.run_sync(lambda: process.communicate(timeout=60))

    assert (process.returncode, stopped.is_set(), len(workers)) == (130, True, 1)
    assert b"stopping the worker" in err


def test_an_error_as_a_document_keeps_secrets_too(capsys: pytest.CaptureFixture[str]) -> None:
    hint = "Send `Authorization: Bearer abcdefghijklmnop`, or hf_abcdefghijklmnop."
    Screen(wants_json=True).complain(BadPeerError("odd", hint=hint, details={"api_key": "0123456789abcdef"}))

    shown = "".join(capsys.readouterr())
    assert '"hint"' in shown
    for secret in ("abcdefghijklmnop", "0123456789abcdef"):
        assert secret not in shown

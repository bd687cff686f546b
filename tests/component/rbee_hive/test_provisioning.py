"""A real hive fetches models from a local Hub: once for all who ask, told as it goes, gone on with after a kill."""

import hashlib
import json
import os
import signal
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.support.gguf_files import padded_model
from tests.support.hive import TOKEN, LiveHive, operators_hive
from tests.support.hub import Hub, Mode, running_hub
from tests.support.models import storyteller

from rbee_shared.sse import FrameSplitter

REPO = "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF"
FILE = "tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf"
REF = f"hf:{REPO}"
HUB_TOKEN = "hf_secretsecretsecret"
MIB = 1024 * 1024


@pytest.fixture
def hub(tmp_path: Path) -> Generator[Hub]:
    (tmp_path / "hub").mkdir()
    with running_hub(tmp_path / "hub") as hub:
        hub.add(
            REPO, {FILE: storyteller(), FILE.replace("Q4_K_M", "Q8_0"): storyteller() + bytes(64), "README.md": b"#"}
        )
        hub.tokens.add(HUB_TOKEN)
        yield hub


@pytest.fixture
def env(hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_TOKEN": HUB_TOKEN}


@pytest.fixture
async def hive(tmp_path: Path, env: dict[str, str]) -> AsyncGenerator[LiveHive]:
    async with operators_hive(tmp_path / "home", env=env) as live:
        yield live


async def asked(hive: LiveHive, model: str, **more: object) -> str:
    """The URL of the events."""
    answer = await hive.send("POST", "/v1/models/provision", {"model": model, **more})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["events_url"])


async def followed(hive: LiveHive, events_url: str) -> list[dict[str, Any]]:
    """All events; the last is the end or an error."""
    splitter, found = FrameSplitter(), []
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with anyio.fail_after(60):
        async with hive.client.stream("GET", hive.url + events_url, headers=headers) as stream:
            async for chunk in stream.aiter_raw():
                found += [frame.json() for frame in splitter.feed(chunk) if frame.event != "message"]
    assert [event["type"] for event in found if event["type"] in {"end", "error"}] == [found[-1]["type"]]
    return found


async def provided(hive: LiveHive, model: str, **more: object) -> dict[str, Any]:
    """The last event."""
    return (await followed(hive, await asked(hive, model, **more)))[-1]


async def test_a_model_is_fetched_once_for_all_and_then_at_hand(hive: LiveHive, hub: Hub) -> None:
    hub.script.add(FILE, Mode(bytes_per_s=2 * MIB))
    urls = {await asked(hive, REF) for _ in range(20)}
    assert len(urls) == 1
    streams: list[list[dict[str, Any]]] = []
    model: dict[str, Any] = {}

    async def follow() -> None:
        streams.append(await followed(hive, next(iter(urls))))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(follow)

    for events in streams:
        assert events[-1]["type"] == "end", events[-1]
        model = events[-1]["model"]
        assert (model["id"], model["quant"], model["architecture"]) == (FILE.removesuffix(".gguf"), "Q4_K_M", "llama")
        assert model["sha256"] == hashlib.sha256(storyteller()).hexdigest()
        progress = [event for event in events if event["type"] == "progress"]
        assert len(progress) >= 3, "two or more a second"
        assert {event["stage"] for event in progress} == {"download"}
        assert all(0 <= event["done"] <= event["total"] == len(storyteller()) for event in progress)
        assert any(event.get("per_s") and event.get("eta_s") is not None for event in progress)
        lines = [event["human"] for event in events if event["type"] == "narration"]
        assert any(line.startswith("model size 4.2 MB") for line in lines)
        assert any("downloaded to" in line for line in lines)
    assert await anyio.Path(model["local_path"]).read_bytes() == storyteller()
    before = len(hub.seen)

    again = await provided(hive, f"{REPO}:q4_k_m")

    assert (again["model"]["id"], again["bytes_fetched"]) == (model["id"], 0)
    assert len(hub.seen) == before, "nobody asked the Hub"
    assert {seen.authorization for seen in hub.requests("cdn", FILE)} == {None}, "the token stays with the Hub"
    log = await anyio.Path(hive.home / "logs" / "rbee-hive.log").read_text()
    assert "hf_secret" not in log
    assert not list((hive.home / "models").rglob("*.partial*"))


async def test_room_is_known_before_anything_is_fetched(hive: LiveHive, hub: Hub) -> None:
    answer = await hive.send("GET", f"/v1/capacity?model={REF}&device=cpu")
    assert answer.status_code == 204, answer.text
    capacity = json.loads(answer.headers["x-rbee-capacity"])
    assert (capacity["basis"], capacity["required_bytes"]) == ("size", -(-len(storyteller()) * 6 // 5))

    await provided(hive, REF)
    capacity = json.loads((await hive.send("GET", f"/v1/capacity?model={REF}")).headers["x-rbee-capacity"])
    assert capacity["basis"] == "header"
    assert len(hub.requests("api")) == 1, "what the Hub said is remembered for the download"


async def test_a_registered_model_is_fetched_under_its_own_name(hive: LiveHive) -> None:
    row = {"id": "tiny", "name": "Tiny", "repo": f"{REPO}:Q8_0", "architecture": "llama", "aliases": ["t"]}
    assert (await hive.send("POST", "/v1/models/register", row)).status_code == 201
    assert (await hive.send("POST", "/v1/workers/spawn", {"model": "tiny"})).status_code == 404

    end = await provided(hive, "t")

    assert (end["model"]["id"], end["model"]["quant"], end["model"]["aliases"]) == ("tiny", "Q8_0", ["t"])
    worker = await hive.spawn("tiny")
    record = await hive.worker(worker["worker_id"])
    assert (record["model_id"], (await hive.send("GET", "/v1/models/tiny")).json()["use_count"]) == ("tiny", 1)
    refused = await hive.send("DELETE", "/v1/models/tiny?files=true")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "FORBIDDEN")


async def test_split_files_come_whole_and_count_as_one(hive: LiveHive, hub: Hub) -> None:
    parts = padded_model(parts=3)
    hub.add("o/split-GGUF", {f"q/big-Q4_0-{n:05d}-of-00003.gguf": part for n, part in enumerate(parts, 1)})

    events = await followed(hive, await asked(hive, "o/split-GGUF"))

    model = events[-1]["model"]
    assert (model["id"], len(model["files"]), model["size_bytes"]) == ("big-Q4_0", 3, sum(map(len, parts)))
    totals = {event["total"] for event in events if event["type"] == "progress"}
    assert totals <= {model["size_bytes"]}
    await hive.spawn(model["id"])


@pytest.mark.parametrize(
    ("ref", "code"),
    [
        ("hf:no/such", "MODEL_NOT_FOUND"),
        ("o/plain", "NO_GGUF_IN_REPO"),
        (f"{REPO}:Q2_K", "NO_GGUF_IN_REPO"),
        ("o/hostile", "MODEL_INVALID"),
        ("o/garbage", "MODEL_INVALID"),
        ("nothing", "MODEL_NOT_FOUND"),
        ("builtin:other", "MODEL_NOT_FOUND"),
        ("file:/etc/passwd", "FORBIDDEN"),
        ("http://127.0.0.1:9/x.gguf", "INVALID_REQUEST"),
    ],
)
async def test_what_cannot_be_had_is_said(hive: LiveHive, hub: Hub, ref: str, code: str) -> None:
    hub.add("o/plain", {"model.safetensors": b"x" * 100})
    hub.add("o/hostile", {"../../evil.gguf": storyteller()})
    hub.add("o/garbage", {"x.gguf": b"GGUF" + bytes(1000)})

    last = await provided(hive, ref)

    assert (last["type"], last["code"]) == ("error", code), last
    assert last["hint"]
    assert (await hive.send("GET", "/v1/models")).json()["models"][0]["id"] == "storyteller"
    assert [path for path in (hive.home / "models").rglob("*") if path.is_file()] == []


async def test_a_repository_without_gguf_names_its_twin(hive: LiveHive, hub: Hub) -> None:
    hub.add("o/Mini", {"model.safetensors": b"x" * 100})
    hub.add("o/Mini-GGUF", {"mini.Q4_0.gguf": storyteller()})
    assert "hf:o/Mini-GGUF" in (await provided(hive, "o/Mini"))["hint"]


async def test_a_url_with_its_hash(hive: LiveHive, hub: Hub) -> None:
    digest = hashlib.sha256(storyteller()).hexdigest()
    url = hub.file_url(REPO, FILE)
    wrong = await provided(hive, f"{url}#sha256={'0' * 64}")
    assert wrong["code"] == "CHECKSUM_MISMATCH"
    end = await provided(hive, url, sha256=digest, id="mine")
    assert (end["model"]["id"], end["model"]["provider"]) == ("mine", "url")
    assert (await provided(hive, f"{url}#sha256={digest}"))["bytes_fetched"] == 0
    await hive.spawn(f"{url}#sha256={digest}")


async def test_a_killed_hive_has_lost_nothing_of_what_it_fetched(tmp_path: Path, hub: Hub, env: dict[str, str]) -> None:
    (content,) = padded_model(size_bytes=24 * MIB)
    hub.add("o/slow", {"slow.gguf": content})
    hub.script.add("slow.gguf", Mode(bytes_per_s=8 * MIB, times=1))
    async with operators_hive(tmp_path / "home", env=env) as first:
        await asked(first, "o/slow")
        partial = tmp_path / "home" / "models"
        with anyio.fail_after(30):
            while sum(path.stat().st_size for path in partial.rglob("*.partial")) < 12 * MIB:  # noqa: ASYNC110
                await anyio.sleep(0.02)
        sent_bytes = hub.sent_bytes("slow.gguf")
        os.kill(first.process.pid, signal.SIGKILL)
        await first.exit_code()
    kept_bytes = sum(path.stat().st_size for path in partial.rglob("*.partial"))
    assert kept_bytes >= 0.95 * sent_bytes - MIB, (kept_bytes, sent_bytes)

    async with operators_hive(tmp_path / "home", env=env) as second:
        events = await followed(second, await asked(second, "o/slow"))

    assert events[-1]["type"] == "end", events[-1]
    assert events[-1]["bytes_fetched"] <= len(content) - kept_bytes + MIB
    assert any("checking what was fetched before" in str(event.get("human")) for event in events)
    assert await anyio.Path(events[-1]["model"]["local_path"]).read_bytes() == content


async def test_a_download_that_nobody_waits_for_any_more_ends_and_is_gone_on_with(
    tmp_path: Path, hub: Hub, env: dict[str, str]
) -> None:
    (content,) = padded_model(size_bytes=8 * MIB)
    hub.add("o/slow", {"slow.gguf": content})
    hub.script.add("slow.gguf", Mode(bytes_per_s=2 * MIB, times=1))
    async with operators_hive(tmp_path / "home", env={**env, "RBEE_CLOCK_PROVISION_GRACE_S": "0.1"}) as hive:
        events_url = await asked(hive, "o/slow")
        with anyio.move_on_after(1.5):
            await followed(hive, events_url)
        await anyio.sleep(0.5)  # longer than the grace: whoever comes back sooner keeps it alive

        events = await followed(hive, events_url)
        assert events[-1].get("code") == "CANCELLED", events[-1]
        end = await provided(hive, "o/slow")
        assert 0 < end["bytes_fetched"] < len(content)


async def test_a_file_that_changed_on_the_disk_is_fetched_again(hive: LiveHive, hub: Hub) -> None:
    path = anyio.Path((await provided(hive, REF))["model"]["local_path"])
    await path.write_bytes(b"x" + storyteller()[1:])
    refused = await hive.send("POST", "/v1/workers/spawn", {"model": REF})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "CHECKSUM_MISMATCH")

    events = await followed(hive, await asked(hive, REF))
    assert events[-1]["bytes_fetched"] == len(storyteller())
    assert any("fetching it again" in str(event.get("human")) for event in events)
    await path.unlink()
    assert (await hive.send("POST", "/v1/workers/spawn", {"model": REF})).status_code == 404
    assert (await provided(hive, REF))["bytes_fetched"] == len(storyteller())
    await hive.spawn(REF)


async def test_offline_the_catalog_still_serves(tmp_path: Path, hub: Hub, env: dict[str, str]) -> None:
    async with operators_hive(tmp_path / "home", env=env) as hive:
        await provided(hive, REF)
    async with operators_hive(tmp_path / "home", env={**env, "HF_HUB_OFFLINE": "1"}) as hive:
        assert (await provided(hive, REF))["bytes_fetched"] == 0
        last = await provided(hive, f"{REPO}:Q8_0")
    assert (last["code"], "HF_HUB_OFFLINE" in last["message"]) == ("DOWNLOAD_FAILED", True)


async def test_a_lost_catalog_is_found_again(tmp_path: Path, hub: Hub, env: dict[str, str]) -> None:
    async with operators_hive(tmp_path / "home", env=env) as hive:
        await provided(hive, REF)
    (tmp_path / "home" / "models.db").write_bytes(b"scribble" * 999)
    async with operators_hive(tmp_path / "home", env=env) as hive:
        said = hive.stderr.read_text()
        assert "is kept as" in said
        assert "found 1 models again" in said
        assert (await provided(hive, REF))["bytes_fetched"] == 0


async def test_numbers_for_prometheus(hive: LiveHive) -> None:
    await provided(hive, REF)
    await provided(hive, "no/such")
    await hive.spawn(REF)
    text = (await hive.send("GET", "/metrics")).text
    for line in (
        f"rbee_hive_download_bytes_total {float(len(storyteller()))}".replace(".0", ""),
        'rbee_hive_downloads_total{outcome="DONE"} 1.0',
        'rbee_hive_downloads_total{outcome="MODEL_NOT_FOUND"} 1.0',
        'rbee_hive_workers{state="idle"} 1.0',
        'rbee_hive_models{state="downloaded"} 2.0',
        "rbee_hive_workers_started_total 1.0",
        'rbee_hive_device_memory_free_bytes{device="cpu"}',
    ):
        assert line.split(" ")[0] in text, line
    assert 'outcome="MODEL_NOT_FOUND"} 1.0' in text
    assert (await hive.send("GET", "/metrics", token=None)).status_code == 401


async def test_models_named_in_the_settings_are_loaded_at_start(tmp_path: Path, env: dict[str, str]) -> None:
    preload = json.dumps([REF, "no/such"])
    async with operators_hive(tmp_path / "home", env={**env, "RBEE_HIVE_PRELOAD": preload}) as hive:
        with anyio.fail_after(60):
            while [worker["state"] for worker in await hive.workers()] != ["idle"]:  # noqa: ASYNC110
                await anyio.sleep(0.1)
            while "no/such is not loaded" not in hive.stderr.read_text():  # noqa: ASYNC110
                await anyio.sleep(0.1)

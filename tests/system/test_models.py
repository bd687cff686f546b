"""Models from a Hub, through the whole chain: everything off, one command, an answer; the second fetches nothing."""

import os
import sqlite3
from collections.abc import Generator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from tests.support.cluster import Cluster
from tests.support.gguf_files import padded_model
from tests.support.hub import Hub, Mode, running_hub
from tests.support.models import storyteller

REPO = "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF"
FILE = "tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf"
REF = f"hf:{REPO}"
MIB = 1024 * 1024


@pytest.fixture
def hub(tmp_path: Path) -> Generator[Hub]:
    (tmp_path / "hub").mkdir()
    with running_hub(tmp_path / "hub") as hub:
        hub.add(REPO, {FILE: storyteller()})
        yield hub


def infer(cluster: Cluster, hub: Hub, *more: str) -> tuple[int, str, str]:
    command = ["infer", "--model", REF, "--prompt", "write a short story", "--max-tokens", "20", *more]
    keeper = cluster.keeper(*command, env={"HF_ENDPOINT": hub.url})
    return keeper.process.returncode, keeper.stdout, keeper.stderr


def test_from_nothing_to_tokens_and_the_second_run_fetches_nothing(cluster: Cluster, hub: Hub) -> None:
    hub.script.add(FILE, Mode(bytes_per_s=2 * MIB, times=1))
    status, answer, told = infer(cluster, hub)

    assert (status, bool(answer.strip())) == (0, True), told
    order = [
        "asking hive if there is room on CPU",
        f"there is room on CPU for {REF}",
        f"asked hive to download {REF}",
        "asking the Hub what",
        "model size 4.2 MB",
        "downloading [",
        "downloaded to",
        "model is downloaded by the hive",
        "waking a cpu worker on CPU",
        "cpu worker is awake and ready",
    ]
    places = [told.find(part) for part in order]
    assert -1 not in places, (order[places.index(-1)], told)
    assert places == sorted(places), told
    with closing(sqlite3.connect(cluster.home / "models.db")) as db:
        query = "SELECT local_path, size_bytes FROM models WHERE reference = ? AND provider = 'hf'"
        ((path, size_bytes),) = db.execute(query, (REPO,)).fetchall()
    assert (Path(path).read_bytes(), size_bytes) == (storyteller(), len(storyteller()))
    asked = len(hub.seen)

    status, answer, told = infer(cluster, hub)

    assert (status, bool(answer.strip())) == (0, True), told
    assert "download" not in told
    assert len(hub.seen) == asked


def test_nobody_waits_two_seconds_for_a_model_without_a_line(cluster: Cluster, hub: Hub) -> None:
    (content,) = padded_model(size_bytes=12 * MIB)
    hub.add(REPO, {FILE: content})
    hub.script.add(REPO, Mode(at="api", headers_after_s=4.0, times=1))
    hub.script.add(FILE, Mode(bytes_per_s=3 * MIB, times=1))
    keeper = cluster.keeper("infer", "hello", "--model", REF, "--max-tokens", "5", env={"HF_ENDPOINT": hub.url})

    assert keeper.process.returncode == 0, keeper.stderr
    seen_s = [0.0, *(line.at_s for line in keeper.lines)]
    gaps = [(after - before, after) for before, after in pairwise(seen_s)]
    assert max(gaps)[0] < 2.5, (max(gaps), keeper.stderr)


def test_an_interrupted_download_is_gone_on_with_by_the_next_command(cluster: Cluster, hub: Hub) -> None:
    (content,) = padded_model(size_bytes=12 * MIB)
    hub.add(REPO, {FILE: content})
    hub.script.add(FILE, Mode(bytes_per_s=2 * MIB, times=1))
    keeper = cluster.start("rbee-keeper", "infer", "hello", "--model", REF, env={"HF_ENDPOINT": hub.url})
    keeper.wait_for("downloading [##")
    os.kill(keeper.pid, 2)
    assert keeper.wait() == 130
    before = hub.sent_bytes(FILE)

    status, answer, told = infer(cluster, hub)

    assert (status, bool(answer)) == (0, True), told
    assert "checking what was fetched before" in told
    assert hub.sent_bytes(FILE) < before + len(content)


@pytest.mark.parametrize(
    ("model", "code", "hint"),
    [("hf:no/such", "MODEL_NOT_FOUND", "HF_TOKEN"), (f"{REF}:Q2_K", "NO_GGUF_IN_REPO", "Q4_K_M")],
)
def test_what_the_hub_does_not_have_is_said_with_the_way_out(
    cluster: Cluster, hub: Hub, model: str, code: str, hint: str
) -> None:
    keeper = cluster.keeper("infer", "hello", "--model", model, env={"HF_ENDPOINT": hub.url})
    assert keeper.process.returncode == 1
    assert code in keeper.stderr
    assert hint in keeper.stderr


def test_a_hub_that_is_not_there_is_said(cluster: Cluster) -> None:
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "RBEE_TIME_SCALE": "0.5"}
    keeper = cluster.keeper("infer", "hello", "--model", REF, env=env)
    assert keeper.process.returncode == 3, "cannot reach"
    assert "DOWNLOAD_FAILED" in keeper.stderr

"""A hive's devices over HTTP: detected behind a scripted driver, or declared in its config.toml."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.support.hive import LiveHive, QueensSide, operators_hive, queens_side
from tests.support.nvml import GIB, FakeDriver, card, made_driver

DECLARED = """[hive]
devices = [
  { backend = "metal", name = "M3 Max", vram_bytes = 4_000_000_000, build = "cpu" },
  { backend = "cuda", index = 1, name = "RTX 3090", vram_bytes = 1_000, build = "cpu" },
]
"""


@pytest.fixture
def driver(tmp_path: Path) -> FakeDriver:
    directory = tmp_path / "driver"
    directory.mkdir()
    return made_driver(directory)


async def test_detected_devices_are_told_to_clients_and_to_the_queen(driver: FakeDriver, tmp_path: Path) -> None:
    cards = [line for place in range(8) for line in card(place)]
    driver.says("count 8", "0.busy 12", "7.memory 15", *cards)
    async with queens_side() as queen, _hive(tmp_path / "home", driver, queen) as hive:
        answers = await _five_at_once(hive)
        await queen.heard(3)

    for seen in answers:
        assert [gpu["id"] for gpu in seen["gpus"]] == [f"gpu{place}" for place in range(7)]
        assert seen["problems"] == ["GPU 7: GPU is lost (it fell off the bus: reset it, or reboot)"]
        assert (seen["models"], seen["workers"]) == (1, 0)
        assert seen["gpus"][0]["vram_gb"] == 85.9
    loads = {load["id"]: load for load in queen.beats[-1]["devices"]}
    assert (loads["gpu0"]["free_bytes"], loads["gpu0"]["utilisation_pct"]) == (60 * GIB, 12.0)
    assert loads["gpu1"]["utilisation_pct"] is None
    assert "gpu7" not in loads
    assert driver.shutdowns == 1


async def test_a_card_that_hangs_stops_neither_answers_nor_heartbeats_nor_the_end(
    driver: FakeDriver, tmp_path: Path
) -> None:
    driver.says("count 2", *card(0), *card(1))
    async with queens_side() as queen, _hive(tmp_path / "home", driver, queen) as hive:
        await queen.heard(1)
        driver.says("count 2", "1.memory hang", *card(0), *card(1))
        answers = await _five_at_once(hive)
        assert [gpu["id"] for gpu in answers[0]["gpus"]] == ["gpu0"]
        heard = len(queen.beats)
        await queen.heard(heard + 3)
        assert [load["id"] for load in queen.beats[-1]["devices"]] == ["cpu", "gpu0"]

        await hive.send("POST", "/shutdown")
        assert await hive.exit_code() == 0


async def test_declared_devices_serve_with_the_build_they_name(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text(DECLARED)
    async with operators_hive(home) as hive:
        seen = (await hive.send("GET", "/v1/devices")).json()
        assert [(gpu["id"], gpu["backend"], gpu["declared"], gpu["build"]) for gpu in seen["gpus"]] == [
            ("gpu0", "metal", True, "cpu"),
            ("gpu1", "cuda", True, "cpu"),
        ]
        assert seen["cpu"]["offered"] is False
        refused = await hive.send("POST", "/v1/workers/spawn", {"model": "builtin:storyteller", "device": "cpu"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "BACKEND_UNAVAILABLE")
        too_small = await hive.send("GET", "/v1/capacity?model=builtin:storyteller&device=cuda:1")
        assert too_small.status_code == 409

        worker = await hive.spawn(backend="metal", device=0)
        record = await hive.worker(worker["worker_id"])
        assert (record["backend"], record["device"], record["state"]) == ("metal", "gpu0", "idle")
        with anyio.fail_after(10):
            while True:
                after = (await hive.send("GET", "/v1/devices")).json()["gpus"][0]
                if after["free_bytes"] < 4_000_000_000:
                    break
                await anyio.sleep(0.1)
        assert 4_000_000_000 - after["free_bytes"] > 1_000_000  # what the model takes is no longer free


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        (
            '[{ backend = "cuda", name = "a", vram_bytes = 9 }, { backend = "cuda", name = "b", vram_bytes = 9 }]',
            "entry 2",
        ),
        ('[{ backend = "cuda", name = "a" }]', "entry 1 (cuda:0) has no vram_bytes"),
        ('[{ backend = "cuda", name = "a", vram = 9 }]', "devices.0.vram"),
    ],
)
async def test_a_hive_with_contradictory_declarations_does_not_start(tmp_path: Path, devices: str, words: str) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "config.toml").write_text(f"[hive]\ndevices = {devices}\n")
    with pytest.raises(AssertionError, match="died at start-up"):
        async with operators_hive(home):
            pass
    said = next(home.glob("hive-*.stderr")).read_text()
    assert "INVALID_REQUEST" in said
    assert words in said


def _hive(home: Path, driver: FakeDriver, queen: QueensSide) -> AbstractAsyncContextManager[LiveHive]:
    return operators_hive(home, "--queen", queen.url, env=driver.environment())


async def _five_at_once(hive: LiveHive) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []

    async def ask() -> None:
        with anyio.fail_after(2 + 1):  # the bound, and a second for a busy machine
            answers.append((await hive.send("GET", "/v1/devices")).json())

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(ask)
    return answers

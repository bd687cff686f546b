"""The devices of a node, looked at for real: this machine's processor, and NVIDIA cards behind a scripted driver."""

import os
import time
from pathlib import Path

import psutil
import pytest
from tests.support.nvml import GIB, FakeDriver, card, made_driver, node

_ANSWER_S = 2.0


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> FakeDriver:
    return made_driver(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def driver(library: FakeDriver) -> FakeDriver:
    library.says("count 0")
    (library.directory / "shutdown").unlink(missing_ok=True)
    return library


def test_the_processor_of_this_machine_is_described_with_nothing_made_up() -> None:
    with node() as here:
        first = here.look()["cpu"]
        time.sleep(0.3)
        second = here.look()["cpu"]

    assert first["name"]
    assert 1 <= first["cores"] <= first["logical_cores"] <= (os.cpu_count() or 1)
    assert 1 <= first["physical_cores"] <= first["logical_cores"]
    assert 0 < first["free_bytes"] <= first["ram_bytes"] <= psutil.virtual_memory().total
    assert first["ram_gb"] == round(first["ram_bytes"] / 1e9, 1)
    assert (first["offered"], first["declared"]) == (True, False)
    assert first["utilisation_pct"] is None or 0 <= first["utilisation_pct"] <= 100  # one look alone tells nothing
    assert 0 <= second["utilisation_pct"] <= 100


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2, reason="needs two processors")
def test_only_the_cores_that_the_hive_may_run_on_are_counted() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with node() as here:
            cpu = here.look()["cpu"]
    finally:
        os.sched_setaffinity(0, before)

    assert (cpu["cores"], cpu["logical_cores"], cpu["physical_cores"]) == (1, 1, 1)


def test_a_machine_without_the_driver_has_no_gpus_and_no_problem(tmp_path: Path) -> None:
    with node(LD_LIBRARY_PATH=str(tmp_path)) as here:
        if _real_cards():
            pytest.skip("this machine has NVIDIA's driver")
        seen = here.look()
        assert (seen["gpus"], seen["problems"]) == ([], [])
        assert here.ask("present")["present"] == [{"id": "cpu", "device": "cpu", "environment": {}}]
        assert here.end() == 0


def test_cards_are_told_with_all_that_they_know(driver: FakeDriver) -> None:
    driver.says(
        "count 2", "driver 580.82", *card(0), "0.busy 37", "0.celsius 61",
        *card(1, "NVIDIA GeForce RTX 3060", total=12 * GIB, free=11 * GIB),
    )  # fmt: skip
    with node(**driver.environment()) as here:
        seen = here.look()
        loads = here.ask("loads")["loads"]
        free = here.ask("free cuda:1")
        present = here.ask("present")["present"]
        assert here.end() == 0

    assert seen["problems"] == []
    first, second = seen["gpus"]
    assert first == {
        "id": "gpu0", "backend": "cuda", "index": 0, "name": "NVIDIA H100", "uuid": "GPU-01111111", "driver": "580.82",
        "vram_bytes": 80 * GIB, "free_bytes": 60 * GIB, "vram_gb": 85.9, "utilisation_pct": 37.0,
        "temperature_c": 61.0, "unified": False, "declared": False, "build": None, "cores": None, "parent_uuid": None,
    }  # fmt: skip
    assert (second["utilisation_pct"], second["temperature_c"]) == (None, None)  # never a made-up 0
    assert [(load["id"], load["free_bytes"], load["utilisation_pct"]) for load in loads[1:]] == [
        ("gpu0", 60 * GIB, 37.0),
        ("gpu1", 11 * GIB, None),
    ]
    assert free["free_bytes"] == 11 * GIB
    by_pci = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert present == [
        {"id": "gpu0", "device": "cuda:0", "environment": by_pci},
        {"id": "gpu1", "device": "cuda:1", "environment": by_pci},
        {"id": "cpu", "device": "cpu", "environment": {}},
    ]
    assert driver.shutdowns == 1


def test_a_temperature_comes_from_an_older_driver_too(driver: FakeDriver) -> None:
    driver.says("count 1", *card(0), "0.celsius 55", "0.newer 13")
    with node(**driver.environment()) as here:
        assert here.look()["gpus"][0]["temperature_c"] == 55.0


def test_mig_instances_are_devices_with_their_own_memory(driver: FakeDriver) -> None:
    driver.says(
        "count 3", *card(0), "0.mig 7", "0.celsius 50",
        *card("0.0", "NVIDIA H100 MIG 1g.10gb", total=10 * GIB, free=9 * GIB),
        *card("0.4", "NVIDIA H100 MIG 2g.20gb", total=20 * GIB, free=19 * GIB),
        *card(1), *card(2), "2.mig 7",
    )  # fmt: skip
    with node(**driver.environment()) as here:
        seen = here.look()
        present = here.ask("present")["present"]

    small, large, whole = seen["gpus"]
    assert (small["name"], small["free_bytes"], small["uuid"]) == (
        "NVIDIA H100 MIG 1g.10gb", 9 * GIB, "MIG-0-01111111"
    )  # fmt: skip
    assert (large["id"], large["vram_bytes"], large["parent_uuid"]) == ("gpu1", 20 * GIB, "GPU-01111111")
    assert (large["temperature_c"], large["utilisation_pct"]) == (50.0, None)
    assert (whole["id"], whole["parent_uuid"]) == ("gpu2", None)
    assert seen["problems"] == ["GPU 2 (NVIDIA H100) is in MIG mode and has no instances"]
    assert present[1] == {
        "id": "gpu1", "device": "cuda:0",
        "environment": {"CUDA_VISIBLE_DEVICES": "MIG-0-41111111", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("listed", "names", "problems"),
    [
        ("1,0", ["b", "a"], 0),
        ("GPU-2", ["c"], 0),
        ("", [], 0),
        ("-1", [], 0),
        ("2,nonsense,0", ["c"], 1),
        ("0,0", [], 1),
    ],
)
def test_cuda_visible_devices_is_honoured(driver: FakeDriver, listed: str, names: list[str], problems: int) -> None:
    driver.says("count 3", *card(0, "a"), *card(1, "b"), *card(2, "c"))
    with node(CUDA_VISIBLE_DEVICES=listed, **driver.environment()) as here:
        seen = here.look()

    assert [gpu["name"] for gpu in seen["gpus"]] == names
    assert [gpu["index"] for gpu in seen["gpus"]] == list(range(len(names)))
    assert len(seen["problems"]) == problems


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("init 18", "mismatch"),
        ("init 18", "reboot"),
        ("init 9", "modprobe"),
        ("init 999", "Unknown Error"),
        ("init 77", "scripted"),
        ("counting 4", "/dev/nvidia"),
    ],
)
def test_a_driver_that_fails_is_said_and_ends_nothing(driver: FakeDriver, fault: str, words: str) -> None:
    driver.says("count 1", fault, *card(0))
    with node(**driver.environment()) as here:
        seen = here.look()
        assert seen["gpus"] == []
        assert words in " ".join(seen["problems"])
        assert [load["id"] for load in here.ask("loads")["loads"]] == ["cpu"]

        driver.says("count 1", *card(0))  # somebody has repaired it
        assert [gpu["id"] for gpu in here.look()["gpus"]] == ["gpu0"]
        assert here.end() == 0


@pytest.mark.parametrize("function", ["handle", "memory", "rates"])
def test_a_card_that_falls_off_the_bus_leaves_the_others_alone(driver: FakeDriver, function: str) -> None:
    healthy = ["count 3", *card(0, "a"), *card(1, "b"), *card(2, "c")]
    driver.says(*healthy)
    with node(**driver.environment()) as here:
        assert len(here.look()["gpus"]) == 3

        driver.says(f"1.{function} 15", *healthy)
        seen = here.look()
        assert [(gpu["id"], gpu["name"]) for gpu in seen["gpus"]] == [("gpu0", "a"), ("gpu2", "c")]
        assert seen["problems"] == ["GPU 1 (b): GPU is lost (it fell off the bus: reset it, or reboot)"]
        assert [load["id"] for load in here.ask("loads")["loads"]] == ["cpu", "gpu0", "gpu2"]
        refusal = here.ask("free gpu1")["error"]
        assert (refusal["code"], "GPU is lost" in refusal["message"]) == ("BACKEND_UNAVAILABLE", True)
        # CUDA no longer counts that card: a worker on the one behind it must not be told a number
        behind = here.ask("present")["present"][2]
        assert (behind["id"], behind["device"]) == ("gpu2", "cuda:0")
        assert behind["environment"]["CUDA_VISIBLE_DEVICES"] == "GPU-21111111"

        driver.says(*healthy)
        assert here.look()["problems"] == []


def test_what_one_card_does_not_know_harms_nothing(driver: FakeDriver) -> None:
    driver.says("count 1", *card(0), "0.rates 999", "0.newer 999")
    with node(**driver.environment()) as here:
        seen = here.look()

    assert (seen["problems"], seen["gpus"][0]["utilisation_pct"]) == ([], None)


def test_a_name_that_is_no_text_is_a_problem_of_that_card(driver: FakeDriver) -> None:
    driver.says("count 2", *card(0), *card(1))
    script = driver.script.read_bytes().replace(b"0.name NVIDIA", b"0.name \xff\xfe", 1)
    driver.script.write_bytes(script)
    with node(**driver.environment()) as here:
        seen = here.look()

    assert [gpu["id"] for gpu in seen["gpus"]] == ["gpu1"]
    assert "no text" in seen["problems"][0]


@pytest.mark.parametrize("memory", ["0.memory 3", "0.total 0"])
def test_a_part_without_memory_of_its_own_shares_the_processors(driver: FakeDriver, memory: str) -> None:
    driver.says(memory, "count 1", *card(0, "NVIDIA GB10"))
    with node(**driver.environment()) as here:
        seen = here.look()

    (gpu,), cpu = seen["gpus"], seen["cpu"]
    assert (gpu["unified"], gpu["vram_bytes"]) == (True, cpu["ram_bytes"])
    assert 0 < gpu["free_bytes"] <= gpu["vram_bytes"]


def test_a_card_that_hangs_delays_nobody_beyond_the_bound_and_takes_no_threads(driver: FakeDriver) -> None:
    healthy = ["count 3", *card(0, "a"), *card(1, "b"), *card(2, "c")]
    driver.says(*healthy)
    with node(**driver.environment()) as here:
        here.look()
        process = psutil.Process(here.pid)
        driver.says("1.memory hang", *healthy)

        first = here.look(5)
        assert (first["answers"], first["took_s"] < _ANSWER_S) == (5, True)
        assert [gpu["id"] for gpu in first["gpus"]] == ["gpu0", "gpu2"]
        assert "GPU 1 (b): no answer within" in first["problems"][0]
        time.sleep(0.5)

        again = [here.look(5)["took_s"] for _ in range(5)] + [here.ask("loads")["took_s"] for _ in range(20)]
        assert max(again) < _ANSWER_S / 2  # it is known by now to hang: nobody waits for it any more

        def most_threads() -> int:
            """Of the looks one after another: those that rest between two looks come and go."""
            return max((here.look(5), process.num_threads())[1] for _ in range(20))

        threads = most_threads()
        assert most_threads() <= threads + 3
        assert [load["id"] for load in here.ask("loads")["loads"]] == ["cpu", "gpu0", "gpu2"]

        assert here.end() == 0  # a thread that hangs does not keep the process
    assert driver.shutdowns == 0  # ... nor is NVML shut down under it


def test_a_driver_that_hangs_at_its_start_is_said_and_ends_nothing(driver: FakeDriver) -> None:
    driver.says("init hang", "count 1", *card(0))
    with node(**driver.environment()) as here:
        seen = here.look(5)
        assert (seen["gpus"], seen["took_s"] < _ANSWER_S) == ([], True)
        assert "NVIDIA: no answer within" in seen["problems"][0]
        assert here.ask("loads")["took_s"] < _ANSWER_S
        assert here.end() == 0


def test_a_driver_that_starts_slowly_is_waited_for_in_the_background(driver: FakeDriver) -> None:
    driver.says("init 3.5s", "count 1", *card(0))
    with node(**driver.environment()) as here:
        assert here.ask("present")["present"][0]["id"] == "cpu"
        deadline_s = time.monotonic() + 20
        while here.ask("present")["present"][0]["id"] == "cpu":  # nobody looks: it is found all the same
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        assert [load["id"] for load in here.ask("loads")["loads"]] == ["cpu", "gpu0"]


def test_eight_cards_are_read_in_one_go(driver: FakeDriver) -> None:
    driver.says("count 8", *(line for place in range(8) for line in card(place)))
    with node(**driver.environment()) as here:
        seen = here.look(5)

    assert [gpu["id"] for gpu in seen["gpus"]] == [f"gpu{place}" for place in range(8)]
    assert seen["took_s"] < _ANSWER_S


def test_declared_devices_replace_what_is_there(driver: FakeDriver) -> None:
    driver.says("count 1", *card(0))
    declared = [
        {"backend": "cuda", "index": 1, "name": "RTX 3090", "vram_bytes": 24 * 10**9, "build": "cpu"},
        {"backend": "metal", "name": "M3 Max", "vram_bytes": 10**6, "build": "cpu"},
    ]
    with node(declared, **driver.environment()) as here:
        seen = here.look()
        present = here.ask("present")["present"]
        free = here.ask("free metal")
        loads = here.ask("loads")["loads"]
        refusal = here.ask("free cpu")
        assert here.end() == 0

    assert [(gpu["id"], gpu["name"], gpu["declared"], gpu["build"]) for gpu in seen["gpus"]] == [
        ("gpu1", "RTX 3090", True, "cpu"),
        ("gpu0", "M3 Max", True, "cpu"),
    ]
    assert seen["gpus"][0]["free_bytes"] <= min(24 * 10**9, seen["cpu"]["ram_bytes"])
    assert (seen["cpu"]["offered"], seen["cpu"]["declared"]) == (False, False)
    assert present == [
        {"id": "gpu1", "device": "cpu", "environment": {}},
        {"id": "gpu0", "device": "cpu", "environment": {}},
    ]
    assert free["free_bytes"] == 10**6
    assert [load["id"] for load in loads] == ["cpu", "gpu1", "gpu0"]
    assert refusal["error"]["code"] == "BACKEND_UNAVAILABLE"
    assert driver.shutdowns == 0  # the driver was not even loaded


def test_the_real_cards_of_this_machine() -> None:
    if not _real_cards():
        pytest.skip("no NVIDIA driver here")
    with node() as here:
        seen = here.look(5)
        assert here.end() == 0

    assert seen["took_s"] < _ANSWER_S
    for gpu in seen["gpus"]:
        assert gpu["uuid"].startswith(("GPU-", "MIG-"))
        assert 0 < gpu["free_bytes"] <= gpu["vram_bytes"]
    assert seen["gpus"] or seen["problems"]


def _real_cards() -> bool:
    return Path("/proc/driver/nvidia/version").exists()

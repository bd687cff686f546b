"""What an operator does with a node that is really there: drain it, forget it, ask how it is."""

import json
import time

from tests.support.lab import Lab
from tests.support.lab_answers import document, infer, of_nodes, refusal
from tests.support.lab_cluster import PROGRAMS, keeper, standing_queen

from rbee_shared.version import __version__

HEARTBEAT_S = 2
FRESH_MS = 6_000


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_a_drained_node_gets_no_work_until_it_is_resumed_whichever_queen_is_asked(cluster: Lab) -> None:
    blep, task = cluster.blep, ("infer", "--node", "mac", "--max-tokens", "3", "hello")
    with standing_queen(cluster):
        infer(blep, *task[1:])
        keeper(blep, "node", "drain", "mac")
        assert refusal(blep, *task)["code"] == "NO_CAPACITY"
        cluster.mac.seen_alive("rbee-hive", "llm-worker-rbee")
        assert "drained" in keeper(blep, "node", "list").stdout
    cluster.mac.all_gone(20, *PROGRAMS)
    with standing_queen(cluster):
        error = refusal(blep, *task)
        assert (error["code"], "node resume mac" in error["hint"]) == ("NO_CAPACITY", True)
        cluster.mac.all_gone(1, *PROGRAMS)
        keeper(blep, "node", "resume", "mac")
        infer(blep, *task[1:])
        cluster.mac.seen_alive("rbee-hive", "llm-worker-rbee")
    cluster.mac.all_gone(20, *PROGRAMS)


def test_a_node_that_is_removed_is_stopped_and_forgotten_and_keeps_what_is_installed(cluster: Lab) -> None:
    blep, mac = cluster.blep, cluster.mac
    keeper(blep, "node", "add", "home", "--host", mac.address)
    with standing_queen(cluster):
        infer(blep, "--node", "home", "--max-tokens", "3", "hello")
        mac.seen_alive("rbee-hive", "llm-worker-rbee")
        keeper(blep, "node", "remove", "home")
        mac.all_gone(5, *PROGRAMS)
        assert refusal(blep, "node", "show", "home")["code"] == "NODE_NOT_FOUND"
        assert refusal(blep, "infer", "--node", "home", "hello")["code"] == "NODE_NOT_FOUND"
        assert "home" not in keeper(blep, "node", "list").stdout
    assert mac.path("/root/.rbee/current").is_symlink()


def test_a_dead_machine_can_be_removed(cluster: Lab) -> None:
    keeper(cluster.blep, "node", "add", "mac")
    cluster.mac.power_off()
    keeper(cluster.blep, "node", "remove", "mac")


def test_adding_a_node_again_changes_what_is_named_and_keeps_the_rest(cluster: Lab) -> None:
    blep = cluster.blep
    first = document(blep, "node", "add", "home", "--host", cluster.mac.address, "--port", "22", "--no-install")["node"]
    again = document(blep, "node", "add", "home", "--user", "root")["node"]
    kept = ("host", "port", "install", "transport", "key", "home")
    assert [again[name] for name in kept] == [first[name] for name in kept]
    assert (first["user"], again["user"]) == (None, "root")


def test_pool_status_says_what_each_machine_really_has(cluster: Lab) -> None:
    """Seed 002: version, each device's memory in all and free, its load, workers, models, disk, last heartbeat."""
    blep = cluster.blep
    with standing_queen(cluster):
        workers = {
            node: infer(blep, "--node", node, "--max-tokens", "2", "hello").started["worker_id"]
            for node in ("localhost", "mac", "workstation")
        }
        time.sleep(5 * HEARTBEAT_S)
        shown = of_nodes(blep, "status", "--host", "all")
        print(json.dumps(shown, indent=1))
        assert set(shown) == set(workers)
        for node, status in shown.items():
            assert status["version"] == __version__
            assert [worker["id"] for worker in status["workers"]] == [workers[node]]
            assert status["models"] >= 1
            assert status["disk_free_bytes"] > 0
            assert 0 <= _now_ms() - status["last_seen_ms"] < FRESH_MS
            cpu = status["devices"]["cpu"]
            assert 0 < cpu["free_bytes"] <= cpu["ram_bytes"]
            assert 0 <= cpu["utilisation_pct"] <= 100
        gpus = {
            node: [(gpu["id"], gpu["backend"], gpu["name"], gpu["vram_bytes"]) for gpu in status["devices"]["gpus"]]
            for node, status in shown.items()
        }
        assert gpus["mac"] == [("gpu0", "metal", "M3 Max", 36_000_000_000)]
        assert gpus["workstation"] == [
            ("gpu0", "cuda", "RTX 3060", 12_000_000_000),
            ("gpu1", "cuda", "RTX 3090", 24_000_000_000),
        ]
        for status in shown.values():
            for gpu in status["devices"]["gpus"]:
                assert 0 < gpu["free_bytes"] <= gpu["vram_bytes"]

        text = keeper(blep, "pool", "status", "--host", "all").stdout
        for words in ("M3 Max", "RTX 3060", "RTX 3090", "last heartbeat", "disk", "Active Workers", __version__):
            assert words in text


def test_a_node_whose_hive_beats_was_seen_just_now(cluster: Lab) -> None:
    with standing_queen(cluster):
        keeper(cluster.blep, "node", "start", "mac")
        time.sleep(6 * HEARTBEAT_S)
        (node,) = (each for each in document(cluster.blep, "node", "list")["nodes"] if each["name"] == "mac")
        assert _now_ms() - node["last_seen_ms"] < FRESH_MS
        assert node["state"] == "online"


def test_whether_nodes_are_up_to_date_is_said_of_all_at_once(cluster: Lab) -> None:
    keeper(cluster.blep, "infer", "--max-tokens", "1", "hello")
    keeper(cluster.blep, "node", "add", "mac")
    checked = of_nodes(cluster.blep, "update", "--check", "--host", "all")
    assert {node: outcome["facts"]["needed"] for node, outcome in checked.items()} == {"localhost": False, "mac": False}

"""Seed 002's Example 3 between two really different versions: update, stop all, respawn; nothing busy is cut."""

import json
import signal
import time
from pathlib import Path

import psutil
import pytest
from tests.support.cluster import wait_until
from tests.support.lab import Lab
from tests.support.lab_answers import document, infer, of_nodes, prefix_of, refusal
from tests.support.lab_cluster import (
    ENDLESS,
    METAL,
    PROGRAMS,
    keeper,
    name_hosts,
    put_endless,
    put_installation,
    rows,
    save_installation,
    standing_queen,
)
from tests.support.lab_host import Host
from tests.support.lab_machine import OnHost
from tests.support.lab_versions import OLDER, older_keeper, put_older

from rbee_shared.version import __version__

HOME = "/root/.rbee"
HIVE = f"{HOME}/current/bin/rbee-hive"
_ANSWER = Path(__file__).parents[1] / "support" / "programs" / "lab_answer.py"
BUILDS = f"{HOME}/workers.db"
HEARTBEAT_S = 2


@pytest.fixture(scope="session")
def _older_installation(_running_lab: Lab, _installation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An older rbee on mac, and the libraries of both on blep: made once; the directory with the two archives."""
    lab, archives = _running_lab, tmp_path_factory.mktemp("older")
    lab.renew()
    name_hosts(lab)
    put_installation(lab.mac, _installation)
    put_older(lab.blep)
    older_keeper(lab.blep, "node", "wheelhouse", "mac", within_s=300)
    older_keeper(lab.blep, "node", "install", "mac", within_s=300)
    save_installation(lab.mac, archives / "mac")
    save_installation(lab.blep, archives / "blep", ["wheelhouse"])
    return archives


@pytest.fixture
def older(_older_installation: Path, lab: Lab) -> Lab:
    """mac has an older rbee; an operator has started its hive, and a worker of it."""
    name_hosts(lab)
    for host in (lab.blep, lab.mac):
        put_installation(host, _older_installation / host.name)
    lab.mac.write("/root/.rbee/config.toml", METAL)
    put_endless(lab.mac)
    hive = lab.mac.popen([HIVE, "daemon"])
    hive.wait_for("HTTP server ready")
    lab.mac.run([HIVE, "models", "import", ENDLESS, "--id", "endless"])
    lab.mac.run([HIVE, "worker", "spawn", "metal", "--model", "endless", "--gpu", "0"])
    for process in _ours(lab.mac):
        assert _version_of(lab.mac, process) == OLDER
    return lab


def _ours(host: Host) -> list[psutil.Process]:
    """The hive and its worker."""
    found = [process for name in ("rbee-hive", "llm-worker-rbee") for process in host.processes(name)]
    assert len(found) == 2, [process.cmdline() for process in found]
    return found


def _version_of(host: Host, process: psutil.Process) -> str:
    """Of the rbee that a process runs: its environment is a version's own."""
    prefix = prefix_of(host, process)
    assert prefix.startswith(f"{HOME}/versions/")
    note = json.loads(host.path(f"{prefix}/installed.json").read_text())
    assert Path(prefix).name == note["id"]
    return str(note["version"])


def _busy(host: Host) -> OnHost:
    """An answer of the worker there, which its hive knows of."""
    host.write("/root/answer.py", _ANSWER.read_text())
    answer = host.popen(["python3", "/root/answer.py", "http://127.0.0.1:9200", f"{HOME}/token"])
    answer.wait_for("token")
    wait_until(lambda: '"busy"' in host.run([HIVE, "worker", "list", "--json"]).stdout, 20, "the hive has heard of it")
    return answer


def test_example_3_update_stop_all_respawn(older: Lab) -> None:
    blep, mac = older.blep, older.mac
    before = _ours(mac)
    with standing_queen(older):
        checked = document(blep, "node", "update", "mac", "--check")["facts"]
        assert (checked["needed"], checked["installed"]) == (True, OLDER)
        assert refusal(blep, "infer", "--node", "mac", "hello")["code"] == "VERSION_MISMATCH"
        assert refusal(blep, "node", "start", "mac", "--no-install")["code"] == "VERSION_MISMATCH"

        updated = of_nodes(blep, "update", "--host", "mac", within_s=300)["mac"]["facts"]
        assert (updated["needed"], updated["installed"]) == (True, __version__)
        assert not [process for process in before if process.is_running()]
        (hive,) = mac.processes("rbee-hive")
        assert _version_of(mac, hive) == __version__, "what was up is up again"
        note = json.loads(mac.path(f"{HOME}/current/installed.json").read_text())
        assert note["version"] == __version__
        assert mac.path(f"{HOME}/previous").readlink().name.startswith(f"{OLDER}-")

        _spawn(blep)
        first = _ours(mac)
        keeper(blep, "pool", "worker", "stop-all", "--host", "mac")
        assert [process.is_running() for process in first] == [True, False]
        _spawn(blep)
        assert [_version_of(mac, process) for process in _ours(mac)] == [__version__, __version__]
        assert _ours(mac)[0] == first[0] == hive
        listed = of_nodes(blep, "worker", "list", "--host", "mac")["mac"]["workers"]
        (worker,) = (each for each in listed if each["state"] != "stopped")
        assert (worker["backend"], worker["device"]) == ("metal", "gpu0")
        task = ("--node", "mac", "--model", "storyteller", "--max-tokens", "3", "hello")
        assert infer(blep, *task).started["worker_id"] == worker["id"]
        keeper(blep, "pool", "test", "--host", "mac", within_s=200)
        assert document(blep, "node", "update", "mac", "--check")["facts"]["needed"] is False
    mac.all_gone(20, *PROGRAMS)


def _spawn(host: Host) -> None:
    keeper(host, "pool", "worker", "spawn", "metal", "--host", "mac", "--model", "storyteller", "--gpu", "0")


def test_a_busy_worker_keeps_its_node_from_being_updated_until_it_is_done(older: Lab) -> None:
    blep, mac = older.blep, older.mac
    before = _ours(mac)
    answer = _busy(mac)
    with standing_queen(older):
        refused = refusal(blep, "node", "update", "mac", within_s=300)
        assert (refused["code"], "--drain" in refused["hint"]) == ("NO_CAPACITY", True)
        assert all(process.is_running() for process in before)
        assert mac.path(f"{HOME}/current").readlink().name.startswith(f"{OLDER}-"), "nothing was changed"

        update = blep.popen(["rbee-keeper", "node", "update", "mac", "--drain"])
        update.wait_for("waiting for the work on mac")
        time.sleep(2 * HEARTBEAT_S)
        assert update.process.poll() is None, update.stderr
        assert all(process.is_running() for process in before)
        assert answer.process.poll() is None, "the answer goes on"
        answer.send_signal(signal.SIGINT)
        answer.wait(20)

        assert update.wait(300) == 0, update.stderr
        assert not [process for process in before if process.is_running()]
        (hive,) = mac.processes("rbee-hive")
        assert _version_of(mac, hive) == __version__
        assert not document(blep, "node", "show", "mac")["drained"]
        infer(blep, "--node", "mac", "--max-tokens", "3", "hello")
    mac.all_gone(20, *PROGRAMS)


def test_an_update_that_cannot_be_installed_leaves_the_older_hive_at_work(older: Lab) -> None:
    blep, mac = older.blep, older.mac
    before = _ours(mac)
    blep.run(["rm", "-rf", f"{HOME}/wheelhouse"])
    with standing_queen(older):
        assert refusal(blep, "node", "update", "mac", within_s=400)["code"] == "INSTALL_FAILED"
    assert _ours(mac) == before
    answer = _busy(mac)
    answer.send_signal(signal.SIGINT)
    answer.wait(20)
    assert mac.path(f"{HOME}/current").readlink().name.startswith(f"{OLDER}-")


def test_a_node_that_sleeps_is_updated_when_it_is_used(older: Lab) -> None:
    blep, mac = older.blep, older.mac
    mac.run([HIVE, "stop"])
    mac.all_gone(20, *PROGRAMS)
    with standing_queen(older):
        infer(blep, "--node", "mac", "--max-tokens", "3", "hello", within_s=300)
        assert [_version_of(mac, process) for process in _ours(mac)] == [__version__, __version__]
    mac.all_gone(20, *PROGRAMS)


def test_worker_builds_of_another_engine_are_made_anew_also_where_the_hive_sleeps(cluster: Lab) -> None:
    blep, mac = cluster.blep, cluster.mac
    ((engine,),) = rows(mac, "SELECT version FROM builds WHERE path IS NOT NULL", BUILDS)
    rows(mac, "UPDATE builds SET version = '0.0.1' WHERE path IS NOT NULL RETURNING id", BUILDS)
    with standing_queen(cluster):
        keeper(blep, "node", "add", "mac")
        updated = document(blep, "node", "update", "mac", within_s=300)["facts"]
        assert updated["restarted"] is False
        mac.all_gone(5, *PROGRAMS)
        again = rows(mac, "SELECT id, version, path FROM builds WHERE path IS NOT NULL AND version != '0.0.1'", BUILDS)
        assert [[id_, version] for id_, version, _ in again] == [[updated["builds"][0], engine]]
        assert document(blep, "node", "update", "mac")["facts"]["builds"] == []
        infer(blep, "--node", "mac", "--max-tokens", "3", "hello")
        (worker,) = mac.processes("llm-worker-rbee")
        assert again[0][2] in worker.cmdline()
    mac.all_gone(20, *PROGRAMS)

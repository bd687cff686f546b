"""Daemons started by hand: with stdin at /dev/null, before or after each other, adopted, left alone, standalone."""

import signal
import time
from typing import Any

import httpx2
from tests.support.cluster import Cluster, wait_until


def hive_health(cluster: Cluster) -> dict[str, Any]:
    url = cluster.run_file("rbee-hive")["url"]
    return dict(httpx2.get(f"{url}/health", trust_env=False).json())


def test_daemons_in_the_background_live_on_with_nothing_on_stdin(cluster: Cluster) -> None:
    cluster.env |= {"RBEE_TIME_SCALE": "0.1"}
    cluster.start("queen-rbee", "daemon")
    cluster.start("rbee-hive", "daemon", "--port", "0")
    wait_until(lambda: hive_health(cluster)["status"] == "healthy", 20, "the hive is up")
    cluster.queen_url()

    time.sleep(8)  # 80 s of its clocks: longer than every lease

    assert hive_health(cluster)["adopted"] is False, "no queen has spoken to it, so it waits for ever"
    cluster.seen_alive("queen-rbee", "rbee-hive")
    for program in ("queen-rbee", "rbee-hive"):
        cluster.only(program).terminate()


def test_an_operators_hive_announces_itself_and_is_used(cluster: Cluster) -> None:
    url = cluster.standing_queen()
    cluster.start("rbee-hive", "daemon", "--port", "0", "--queen", url, "--name", "localhost")
    wait_until(lambda: hive_health(cluster)["adopted"], 20, "the queen has answered it")
    pid = cluster.only("rbee-hive").pid

    keeper = cluster.keeper("infer", "hello")

    assert keeper.wait() == 0, keeper.stderr
    assert "waking the hive" not in keeper.stderr
    assert cluster.only("rbee-hive").pid == pid
    assert cluster.keeper("queen", "stop").wait() == 0
    cluster.all_gone(10)


def test_a_waiting_hive_is_adopted_by_whoever_needs_it(cluster: Cluster) -> None:
    cluster.start("rbee-hive", "daemon", "--port", "0")
    pid = cluster.run_file("rbee-hive")["pid"]

    keeper = cluster.keeper("infer", "hello")

    assert keeper.wait() == 0, keeper.stderr
    assert "adopting the hive that already runs" in keeper.stderr
    assert "hive: waking a cpu worker" in keeper.stderr, "its lines are relayed too"
    cluster.all_gone(10)  # adopted: it goes with its queen
    assert pid not in [process.pid for process in cluster.processes()]


def test_a_standalone_hive_survives_its_queen_and_serves_the_next(cluster: Cluster) -> None:
    cluster.env |= {"RBEE_TIME_SCALE": "0.1"}
    hive = cluster.start("rbee-hive", "daemon", "--port", "0", "--standalone")
    cluster.run_file("rbee-hive")

    for _ in range(2):
        keeper = cluster.keeper("infer", "hello")
        assert keeper.wait() == 0, keeper.stderr
        cluster.all_gone(15, "queen-rbee", "llm-worker-rbee")
        cluster.seen_alive("rbee-hive")

    hive.process.send_signal(signal.SIGTERM)
    assert hive.wait() == 0


def test_an_adopted_hive_goes_when_its_queen_is_killed(cluster: Cluster) -> None:
    cluster.env |= {"RBEE_CLOCK_ADOPTED_HIVE_LEASE_S": "3"}
    cluster.killed = {"queen-rbee"}
    url = cluster.standing_queen()
    cluster.start("rbee-hive", "daemon", "--port", "0", "--queen", url)
    wait_until(lambda: hive_health(cluster)["adopted"], 20, "the queen has answered it")

    cluster.only("queen-rbee").kill()

    took_s = cluster.all_gone(3 + 5, "rbee-hive")
    assert took_s > 1


def test_two_hives_never_share_a_home(cluster: Cluster) -> None:
    first = cluster.start("rbee-hive", "daemon", "--port", "0")
    cluster.run_file("rbee-hive")

    second = cluster.start("rbee-hive", "daemon", "--port", "0")

    assert second.wait() == 1
    assert "HIVE_OWNED" in second.stderr
    assert str(first.pid) in second.stderr
    first.process.terminate()
    assert first.wait() == 0


def test_stopping_the_queen_twice_and_asking_while_all_is_off(cluster: Cluster) -> None:
    assert cluster.keeper("status").wait() == 3
    assert cluster.keeper("queen", "status").wait() == 3
    assert cluster.keeper("queen", "stop").wait() == 0, "nothing to stop is no failure"

    started = cluster.keeper("queen", "start")
    assert started.wait() == 0, started.stderr
    again = cluster.keeper("queen", "start")
    status = cluster.keeper("status")
    token = cluster.keeper("token")

    assert again.wait() == 0, again.stderr
    assert status.wait() == 0
    assert cluster.queen_url() in status.stdout
    assert token.stdout.strip() == cluster.token
    assert cluster.keeper("queen", "stop").wait() == 0
    cluster.all_gone(1)

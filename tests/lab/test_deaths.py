"""Whoever dies, nothing is left running on a node; and what a cut connection interrupts goes on.

Each death once, at real clocks. The bounds are those of the leases and drains, with room for a busy machine.
"""

import json
import re
import signal
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.support.cluster import wait_until
from tests.support.lab import Lab
from tests.support.lab_cluster import PROGRAMS, TOKEN, keeper, rows, standing_queen
from tests.support.lab_host import Host
from tests.support.lab_machine import OnHost
from tests.support.models import endless_model

ENDLESS = "/root/.rbee/models/endless.gguf"
LEASE_AND_DRAIN_S = 15 + 10 + 20


def _long_answer(lab: Lab, tmp_path: Path, tokens: int = 30_000) -> list[str]:
    """A command whose answer takes a while."""
    target = lab.mac.path(ENDLESS)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.write_bytes(endless_model(tmp_path / "endless.gguf", n_ctx_train=40_000).read_bytes())
    options = ["--temperature", "0", "--max-tokens", str(tokens), "--prompt", "once upon a time"]
    return ["rbee-keeper", "infer", "--node", "mac", "--model", f"file:{ENDLESS}", *options]


@pytest.fixture
def streaming(cluster: Lab, tmp_path: Path) -> Generator[OnHost]:
    """A standing queen on blep, and an answer that streams from mac."""
    with standing_queen(cluster):
        yield _streaming(cluster, tmp_path)


def _streaming(lab: Lab, tmp_path: Path) -> OnHost:
    answer = lab.blep.popen(_long_answer(lab, tmp_path))
    wait_until(lambda: len(answer.stdout_bytes) > 200, 120, f"tokens: {answer.stderr}")
    lab.mac.seen_alive("rbee-hive", "llm-worker-rbee")
    return answer


def test_a_queen_that_is_killed_takes_every_hive_with_her(cluster: Lab, streaming: OnHost) -> None:
    (queen,) = cluster.blep.processes("queen-rbee")
    queen.kill()
    cluster.mac.all_gone(LEASE_AND_DRAIN_S, *PROGRAMS)
    assert streaming.wait(30) == 6, "what was printed is incomplete"


def test_a_queen_that_is_stopped_is_as_good_as_dead(cluster: Lab, streaming: OnHost) -> None:
    (queen,) = cluster.blep.processes("queen-rbee")
    queen.suspend()
    try:
        cluster.mac.all_gone(LEASE_AND_DRAIN_S, *PROGRAMS)
    finally:
        queen.kill()
    streaming.wait(30)


def test_a_node_whose_cable_is_pulled_goes_quiet(cluster: Lab, streaming: OnHost) -> None:
    cluster.cut(cluster.mac)
    cluster.mac.all_gone(LEASE_AND_DRAIN_S, *PROGRAMS)
    assert streaming.wait(60) != 0
    cluster.heal(cluster.mac)
    again = keeper(cluster.blep, "infer", "--node", "mac", "--max-tokens", "5", "hello")
    assert again.stdout.strip()


@pytest.mark.parametrize("from_mac", [True, False])
def test_a_network_that_is_cut_one_way_is_cut(cluster: Lab, streaming: OnHost, from_mac: bool) -> None:
    source, target = (cluster.mac, cluster.blep) if from_mac else (cluster.blep, cluster.mac)
    cluster.cut_one_way(source, target)
    cluster.mac.all_gone(LEASE_AND_DRAIN_S, *PROGRAMS)
    assert streaming.wait(60) != 0


def test_a_hive_that_is_killed_takes_its_workers_and_the_next_task_finds_another(
    cluster: Lab, streaming: OnHost
) -> None:
    (hive,) = cluster.mac.processes("rbee-hive")
    hive.kill()
    cluster.mac.all_gone(20, "llm-worker-rbee")
    assert streaming.wait(60) != 0
    assert keeper(cluster.blep, "infer", "--node", "mac", "--max-tokens", "5", "hello").stdout.strip()


def test_a_hive_that_hangs_is_ended_by_its_queen(cluster: Lab, streaming: OnHost) -> None:
    (hung,) = cluster.mac.processes("rbee-hive")
    hung.suspend()
    try:
        cluster.mac.all_gone(60, "llm-worker-rbee")
        assert keeper(cluster.blep, "infer", "--node", "mac", "--max-tokens", "5", "hello").stdout.strip()
        assert not hung.is_running(), "the next task needs its home"
    finally:
        if hung.is_running():
            hung.resume()
    streaming.wait(60)


def test_a_node_that_reboots_is_welcomed_again(cluster: Lab, streaming: OnHost) -> None:
    cluster.mac.reboot()
    assert not [process for name in PROGRAMS for process in cluster.mac.processes(name)]
    assert streaming.wait(90) != 0
    again = keeper(cluster.blep, "infer", "--node", "mac", "--max-tokens", "5", "hello")
    assert again.stdout.strip()


def test_a_node_that_returns_is_known_under_a_new_number_and_takes_no_order_of_an_older_one(cluster: Lab) -> None:
    with standing_queen(cluster):
        keeper(cluster.blep, "node", "start", "mac")
        first = _epoch(cluster)
        cluster.mac.reboot()
        wait_until(lambda: "asleep" in keeper(cluster.blep, "node", "show", "mac").stdout, 60, "she has noticed")
        keeper(cluster.blep, "node", "start", "mac")
        assert _epoch(cluster) > first
        assert _order(cluster, first) == (409, "STALE_EPOCH")
        assert _order(cluster, _epoch(cluster)) == (200, "")


_ORDER = """
import json, sys, urllib.error, urllib.request
request = urllib.request.Request("http://127.0.0.1:9200/v1/workers/stop-all", data=b"", method="POST")
request.add_header("Authorization", "Bearer " + sys.argv[1])
request.add_header("X-Rbee-Epoch", sys.argv[2])
try:
    print(json.dumps([urllib.request.urlopen(request).status, ""]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, json.load(error)["error"]["code"]]))
"""


def _order(lab: Lab, epoch: int) -> tuple[int, str]:
    """Status and error code of an order to mac's hive under that number."""
    status, code = json.loads(lab.mac.run(["python3", "-c", _ORDER, TOKEN.strip(), str(epoch)]).stdout)
    return int(status), str(code)


def _epoch(lab: Lab) -> int:
    """The last number that the queen has given."""
    ((epoch,),) = rows(lab.blep, "SELECT max(epoch) FROM epochs", "/root/.rbee/queen.db")
    return int(epoch)


def test_two_hives_never_share_a_home(cluster: Lab) -> None:
    with standing_queen(cluster):
        keeper(cluster.blep, "node", "start", "mac")
        second = cluster.mac.run(["/root/.rbee/current/bin/rbee-hive", "daemon", "--port", "9300"], check=False)
        assert second.status == 1
        assert "HIVE_OWNED" in second.stderr


def test_a_connection_that_is_cut_in_mid_answer_loses_no_token(cluster: Lab, tmp_path: Path) -> None:
    command = _long_answer(cluster, tmp_path, tokens=3_000)
    with standing_queen(cluster):
        whole = cluster.blep.run(command, within_s=180).stdout
        answer = cluster.blep.popen(command)
        wait_until(lambda: len(answer.stdout_bytes) > 500, 120, f"tokens: {answer.stderr}")
        for connection in cluster.mac.processes("sshd: root"):
            connection.kill()

        assert answer.wait(180) == 0, answer.stderr
        assert answer.stdout == whole
        assert len(answer.stdout_bytes) > 500
        assert "broke off" in answer.stderr
    cluster.mac.all_gone(30, *PROGRAMS)


def test_while_a_stream_runs_the_network_sees_nothing_but_sshd(cluster: Lab, streaming: OnHost) -> None:
    assert cluster.open_ports(cluster.workstation, cluster.mac) == {22}
    assert cluster.open_ports(cluster.workstation, cluster.blep) == {22}
    assert streaming.process.poll() is None, "it was still streaming"
    streaming.send_signal(signal.SIGINT)
    streaming.wait(60)


def test_a_queen_that_is_restarted_in_time_keeps_her_warm_workers(cluster: Lab) -> None:
    with standing_queen(cluster):
        keeper(cluster.blep, "infer", "--node", "mac", "--max-tokens", "5", "hello")
        (worker,) = cluster.mac.processes("llm-worker-rbee")
        (queen,) = cluster.blep.processes("queen-rbee")
        queen.kill()
    with standing_queen(cluster):
        time.sleep(12)  # past the worker's own lease, were it not for the hive
        again = keeper(cluster.blep, "infer", "--node", "mac", "--max-tokens", "5", "hello")
        assert worker.is_running(), "nothing was loaded anew"
        assert "loading model" not in again.stderr
        assert "waking" not in again.stderr
    cluster.mac.all_gone(40, *PROGRAMS)


def _hosts(lab: Lab) -> tuple[Host, ...]:
    return (lab.blep, lab.mac, lab.workstation)


def test_three_nodes_stop_together(cluster: Lab) -> None:
    with standing_queen(cluster):
        for node in ("localhost", "mac", "workstation"):
            keeper(cluster.blep, "infer", "--node", node, "--max-tokens", "2", "hello")
        for host in _hosts(cluster):
            host.seen_alive("rbee-hive", "llm-worker-rbee")
        stopped = keeper(cluster.blep, "queen", "stop")
        assert re.search(r"mac", stopped.stderr)
    for host in _hosts(cluster):
        host.all_gone(10, *PROGRAMS)

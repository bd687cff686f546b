"""All nodes stop together and each is told of, a queen comes back to what she left, and no cycle leaves a trace."""

import json
import re
import time
from collections.abc import Generator

import pytest
from tests.support.cluster import wait_until
from tests.support.lab import Lab
from tests.support.lab_answers import document, infer
from tests.support.lab_cluster import PROGRAMS, TOKEN, Gone, keeper, rows, standing_queen
from tests.support.lab_host import Host
from tests.support.lab_machine import Done

NODES = ("localhost", "mac", "workstation")
QUEEN_DRAIN_S = 20
LEASE_S = 25
ROOM_S = 5
BY_LEASE = "will stop itself by its lease in at most 25 s"


@pytest.fixture
def all_awake(cluster: Lab) -> Generator[Lab]:
    """A standing queen, and a hive with a worker on each of three nodes; root's, on all of them."""
    with standing_queen(cluster):
        for node in NODES:
            infer(cluster.blep, "--node", node, "--max-tokens", "2", "hello")
        for host in _hosts(cluster):
            host.seen_alive("rbee-hive", "llm-worker-rbee")
        yield cluster


def _hosts(lab: Lab) -> tuple[Host, ...]:
    return (lab.blep, lab.mac, lab.workstation)


def _stop(lab: Lab) -> Done:
    """Have the queen stop, within her time."""
    began_s = time.monotonic()
    stopped = keeper(lab.blep, "queen", "stop")
    assert time.monotonic() - began_s < QUEEN_DRAIN_S + ROOM_S
    return stopped


def _told(stopped: Done, node: str) -> str:
    """What became of that node, which is said once."""
    lines = [line for line in stopped.stderr.splitlines() if re.search(rf"\b{node}\b.*(stopped|lease)", line)]
    assert len(lines) == 1, f"{node}: {lines} in\n{stopped.stderr}"
    return lines[0]


def test_three_nodes_stop_together(all_awake: Lab, gone: Gone) -> None:
    stopped = _stop(all_awake)
    for node in NODES:
        assert "stopped" in _told(stopped, node)
    assert BY_LEASE not in stopped.stderr
    for host in _hosts(all_awake):
        gone(host, ROOM_S)


def test_a_node_that_is_cut_and_one_that_hangs_keep_nobody_from_stopping(all_awake: Lab, gone: Gone) -> None:
    """One is reported as unreachable and goes by its lease; the other is ended by force."""
    (hung,) = all_awake.workstation.processes("rbee-hive")
    hung.suspend()
    all_awake.cut(all_awake.mac)
    stopped = _stop(all_awake)
    assert BY_LEASE in _told(stopped, "mac")
    assert "stopped" in _told(stopped, "workstation")
    assert "stopped" in _told(stopped, "localhost")
    for host in (all_awake.workstation, all_awake.blep):
        gone(host, ROOM_S)
    gone(all_awake.mac, LEASE_S + ROOM_S)


def test_stopping_a_node_that_is_cut_fails_and_says_when_it_will_be_gone(all_awake: Lab, gone: Gone) -> None:
    all_awake.cut(all_awake.mac)
    refused = keeper(all_awake.blep, "node", "stop", "mac", check=False)
    assert refused.status == 3, refused
    assert "NODE_UNREACHABLE" in refused.stderr
    assert BY_LEASE in refused.stderr
    gone(all_awake.mac, LEASE_S + ROOM_S)
    all_awake.workstation.seen_alive("rbee-hive", "llm-worker-rbee")


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


def test_a_node_that_returns_is_known_under_a_new_number_and_takes_no_order_of_an_older_one(cluster: Lab) -> None:
    with standing_queen(cluster):
        keeper(cluster.blep, "node", "start", "mac")
        first = _epoch(cluster)
        cluster.mac.reboot()
        wait_until(lambda: document(cluster.blep, "node", "show", "mac")["url"] is None, 60, "she has noticed")
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


def test_twenty_starts_and_stops_leave_nothing(cluster: Lab) -> None:
    keeper(cluster.blep, "infer", "--node", "mac", "--max-tokens", "1", "hello")
    before = cluster.mac.snapshot(), cluster.blep.snapshot()
    with standing_queen(cluster):
        during = cluster.mac.snapshot()
        for _ in range(20):
            keeper(cluster.blep, "node", "start", "mac")
            cluster.mac.seen_alive("rbee-hive")
            keeper(cluster.blep, "node", "stop", "mac")
            cluster.mac.all_gone(10, *PROGRAMS)
        assert cluster.mac.snapshot() == during
    cluster.blep.all_gone(20, *PROGRAMS)
    assert (cluster.mac.snapshot(), cluster.blep.snapshot()) == before

"""Whoever dies, nothing is left running on a node; and what a cut connection interrupts goes on.

Each death once, at real clocks. The bounds are those of the leases and drains, with room for a machine whose few cores
compute the very answer that is to be cut.
"""

import signal
import time
from collections.abc import Generator

import pytest
from tests.support.cluster import wait_until
from tests.support.lab import Lab
from tests.support.lab_answers import document, infer
from tests.support.lab_cluster import PROGRAMS, Gone, keeper, long_answer, put_endless, standing_queen
from tests.support.lab_machine import OnHost

from rbee_shared import exit_codes

BUSY_MACHINE_S = 5
HIVE_LEASE_S, HIVE_DRAIN_S = 15, 10
WORKER_LEASE_S, WORKER_DRAIN_S = 10, 5
QUEENLESS_S = HIVE_LEASE_S + HIVE_DRAIN_S + BUSY_MACHINE_S
HIVELESS_S = WORKER_LEASE_S + WORKER_DRAIN_S + BUSY_MACHINE_S
ORPHANED_S = 1 + WORKER_DRAIN_S + BUSY_MACHINE_S
RETURNED_S = 5


@pytest.fixture
def streaming(cluster: Lab) -> Generator[OnHost]:
    """A standing queen on blep, and an answer that streams from mac."""
    put_endless(cluster.mac)
    with standing_queen(cluster):
        answer = cluster.blep.popen(long_answer())
        _streams(answer)
        cluster.mac.seen_alive("rbee-hive", "llm-worker-rbee")
        yield answer


def _streams(answer: OnHost, past_bytes: int = 200) -> None:
    wait_until(lambda: len(answer.stdout_bytes) > past_bytes, 120, f"tokens: {answer.stderr}")


def _answers_again(lab: Lab) -> None:
    assert infer(lab.blep, "--node", "mac", "--max-tokens", "5", "hello").started["node"] == "mac"


def test_a_queen_that_is_killed_takes_every_hive_with_her(cluster: Lab, streaming: OnHost, gone: Gone) -> None:
    (queen,) = cluster.blep.processes("queen-rbee")
    queen.kill()
    gone(cluster.mac, QUEENLESS_S)
    assert streaming.wait(30) == 6, "what was printed is incomplete"


def test_a_queen_that_is_stopped_is_as_good_as_dead(cluster: Lab, streaming: OnHost, gone: Gone) -> None:
    (queen,) = cluster.blep.processes("queen-rbee")
    queen.suspend()
    try:
        gone(cluster.mac, QUEENLESS_S)
    finally:
        queen.kill()
    assert streaming.wait(30) == 6, "what was printed is incomplete"


def test_a_queen_and_her_connection_that_die_together_take_every_hive_with_them(
    cluster: Lab, streaming: OnHost, gone: Gone
) -> None:
    (queen,) = cluster.blep.processes("queen-rbee")
    for connection in cluster.mac.processes("sshd: root"):
        connection.kill()
    queen.kill()
    gone(cluster.mac, QUEENLESS_S)
    assert streaming.wait(30) == 6, "what was printed is incomplete"


def test_a_node_whose_cable_is_pulled_goes_quiet(cluster: Lab, streaming: OnHost, gone: Gone) -> None:
    cluster.cut(cluster.mac)
    gone(cluster.mac, QUEENLESS_S)
    assert streaming.wait(60) != 0
    _shown_as_offline(cluster)
    cluster.heal(cluster.mac)
    _answers_again(cluster)
    assert document(cluster.blep, "node", "show", "mac")["last_error"] is None


@pytest.mark.parametrize("from_mac", [True, False])
def test_a_network_that_is_cut_one_way_is_cut(cluster: Lab, streaming: OnHost, gone: Gone, from_mac: bool) -> None:
    source, target = (cluster.mac, cluster.blep) if from_mac else (cluster.blep, cluster.mac)
    cluster.cut_one_way(source, target)
    gone(cluster.mac, QUEENLESS_S)
    assert streaming.wait(60) != 0
    _shown_as_offline(cluster)


def _shown_as_offline(lab: Lab) -> None:
    """Not as asleep, which nobody can know, and with what went wrong."""
    wait_until(lambda: "offline" in _line_of(lab, "mac"), 60, "the queen has noticed")
    assert document(lab.blep, "node", "show", "mac")["last_error"]["code"] in {"SSH_UNREACHABLE", "NODE_UNREACHABLE"}


def _line_of(lab: Lab, node: str) -> str:
    lines = keeper(lab.blep, "node", "list").stdout.splitlines()
    return next(line for line in lines if line.startswith(node))


def test_a_hive_that_is_killed_takes_its_workers_and_the_next_task_finds_another(
    cluster: Lab, streaming: OnHost, gone: Gone
) -> None:
    (hive,) = cluster.mac.processes("rbee-hive")
    hive.kill()
    gone(cluster.mac, ORPHANED_S, "llm-worker-rbee")
    assert streaming.wait(60) != 0
    _answers_again(cluster)


def test_a_hive_that_hangs_loses_its_workers_and_is_ended_by_its_queen(
    cluster: Lab, streaming: OnHost, gone: Gone
) -> None:
    (hung,) = cluster.mac.processes("rbee-hive")
    hung.suspend()
    try:
        gone(cluster.mac, HIVELESS_S, "llm-worker-rbee")
        _answers_again(cluster)
        assert not hung.is_running(), "the next task needs its home"
    finally:
        if hung.is_running():
            hung.resume()
    streaming.wait(60)


def test_a_hive_that_hung_past_its_lease_goes_when_it_goes_on_and_its_queen_is_gone(
    cluster: Lab, streaming: OnHost, gone: Gone
) -> None:
    """Nobody can end it while it hangs: its own clock goes on, and is the first thing that it looks at."""
    (hung,) = cluster.mac.processes("rbee-hive")
    (queen,) = cluster.blep.processes("queen-rbee")
    hung.suspend()
    queen.kill()
    gone(cluster.mac, HIVELESS_S, "llm-worker-rbee")
    time.sleep(HIVE_LEASE_S)
    assert hung.is_running()
    hung.resume()
    gone(cluster.mac, HIVE_DRAIN_S + BUSY_MACHINE_S)
    streaming.wait(60)


def test_a_hive_that_hung_past_its_lease_and_goes_on_is_used_by_its_queen_again_or_replaced(
    cluster: Lab, streaming: OnHost, gone: Gone
) -> None:
    (hung,) = cluster.mac.processes("rbee-hive")
    hung.suspend()
    gone(cluster.mac, HIVELESS_S, "llm-worker-rbee")
    time.sleep(HIVE_LEASE_S)
    if hung.is_running():
        hung.resume()
    _answers_again(cluster)
    assert len(cluster.mac.processes("rbee-hive")) == 1
    streaming.wait(60)


def test_a_node_that_reboots_starts_nothing_by_itself_and_is_welcomed_again(
    cluster: Lab, streaming: OnHost, gone: Gone
) -> None:
    cluster.mac.power_off()
    _shown_as_offline(cluster)
    assert streaming.wait(90) != 0
    cluster.mac.power_on()
    deadline_s = time.monotonic() + RETURNED_S
    while time.monotonic() < deadline_s:
        running = [process.cmdline() for name in PROGRAMS for process in cluster.mac.processes(name)]
        lasting = [argv for argv in running if "stop" not in " ".join(argv)]  # she ends what she could not end before
        assert not lasting
        time.sleep(0.1)
    shown = document(cluster.blep, "node", "show", "mac")
    assert (shown["url"], shown["workers"]) == (None, 0), "she knows that nothing runs there"
    asked = keeper(cluster.blep, "pool", "models", "list", "--host", "mac", check=False)
    assert asked.status == exit_codes.UNREACHABLE, "and asking wakes nobody"
    _answers_again(cluster)
    cluster.mac.seen_alive("rbee-hive", "llm-worker-rbee")


def test_a_connection_that_is_cut_in_mid_answer_loses_no_token(cluster: Lab) -> None:
    put_endless(cluster.mac)
    command = long_answer(tokens=3_000)
    with standing_queen(cluster):
        whole = cluster.blep.run(command, within_s=180).stdout
        answer = cluster.blep.popen(command)
        _streams(answer, past_bytes=500)
        for connection in cluster.mac.processes("sshd: root"):
            connection.kill()

        assert answer.wait(180) == 0, answer.stderr
        assert answer.stdout == whole
        assert len(answer.stdout_bytes) > 500
        assert "broke off" in answer.stderr
        cluster.mac.seen_alive("rbee-hive", "llm-worker-rbee")
    cluster.mac.all_gone(30, *PROGRAMS)


def test_while_a_stream_runs_the_network_sees_nothing_but_sshd(cluster: Lab, streaming: OnHost) -> None:
    assert cluster.open_ports(cluster.workstation, cluster.mac) == {22}
    assert cluster.open_ports(cluster.workstation, cluster.blep) == {22}
    assert streaming.process.poll() is None, "it was still streaming"
    streaming.send_signal(signal.SIGINT)
    streaming.wait(60)

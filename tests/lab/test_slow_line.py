"""A node at the other end of the world: 150 ms each way, from all off to an answer, a hang-up, and all off again."""

import time

import psutil
from tests.support.cluster import wait_until
from tests.support.lab import Lab
from tests.support.lab_cluster import PROGRAMS, long_answer, put_endless, slow_line, standing_queen, watched

DELAY_MS = 150


def test_everything_off_far_away(cluster: Lab) -> None:
    with slow_line(cluster, cluster.mac, DELAY_MS):
        options = ["--node", "mac", "--max-tokens", "20", "once upon a time"]
        done = watched(cluster.blep, cluster.mac, "infer", *options, within_s=300)
        assert len(done.stdout.split()) >= 5
        cluster.mac.all_gone(20, *PROGRAMS)


def test_a_worker_far_away_stops_for_a_reader_who_leaves(cluster: Lab) -> None:
    with slow_line(cluster, cluster.mac, DELAY_MS), standing_queen(cluster):
        put_endless(cluster.mac)
        answer = cluster.blep.popen(long_answer())
        wait_until(lambda: len(answer.stdout_bytes) > 200, 120, f"tokens: {answer.stderr}")
        answer.send_signal(2)
        assert answer.wait(30) == 130
        (worker,) = cluster.mac.processes("llm-worker-rbee")
        wait_until(lambda: _rests(worker), 30, "the worker has nothing to do")
        again = cluster.blep.run(long_answer(tokens=5))
        assert again.stdout.strip()
        assert cluster.mac.processes("llm-worker-rbee") == [worker]
    cluster.mac.all_gone(20, *PROGRAMS)


def _rests(worker: psutil.Process) -> bool:
    before = sum(worker.cpu_times()[:2])
    time.sleep(0.5)
    return sum(worker.cpu_times()[:2]) - before < 0.1

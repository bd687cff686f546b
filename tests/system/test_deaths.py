"""Every program dies in every way, idle and in mid-answer: who must be gone is gone within the bounds of the design."""

import signal
import time

import pytest
from tests.support.cluster import Cluster, Running, wait_until

ANSWERING = "in mid-answer"
KILL, TERM = signal.SIGKILL, signal.SIGTERM


_LONG_DRAIN = {
    f"RBEE_CLOCK_{name}_DRAIN_S": seconds
    for name, seconds in (("WORKER", "30"), ("HIVE", "35"), ("QUEEN", "40"), ("KEEPER", "45"))
}


def answering(cluster: Cluster, endless: str, max_tokens: int = 30_000) -> Running:
    """A keeper whose answer has begun and goes on for long."""
    keeper = cluster.start("rbee-keeper", "infer", "go on", "--model", endless, "--max-tokens", str(max_tokens))
    wait_until(lambda: keeper.stdout_bytes, 60, f"the first token\n{keeper.stderr}")
    cluster.seen_alive("rbee-keeper", "queen-rbee", "rbee-hive", "llm-worker-rbee")
    return keeper


@pytest.mark.parametrize("number", [KILL, TERM])
def test_keeper_dies_in_mid_answer(cluster: Cluster, endless: str, number: signal.Signals) -> None:
    keeper = answering(cluster, endless)

    keeper.process.send_signal(number)

    assert keeper.wait() == (-KILL if number == KILL else 143)
    cluster.all_gone(10)


def test_queen_is_killed_in_mid_answer(cluster: Cluster, endless: str) -> None:
    keeper = answering(cluster, endless)
    cluster.killed = {"queen-rbee"}

    cluster.only("queen-rbee").kill()

    cluster.all_gone(3, "queen-rbee", "rbee-hive", "llm-worker-rbee")
    assert keeper.wait() == 6, keeper.stderr
    assert "incomplete" in keeper.stderr
    assert "QUEEN_LOST" in keeper.stderr


def test_hive_is_killed_in_mid_answer(cluster: Cluster, endless: str) -> None:
    keeper = answering(cluster, endless)
    cluster.killed = {"rbee-hive"}

    cluster.only("rbee-hive").kill()

    cluster.all_gone(2, "rbee-hive", "llm-worker-rbee")
    assert keeper.wait() == 6, keeper.stderr
    assert "incomplete" in keeper.stderr


@pytest.mark.parametrize("number", [KILL, signal.SIGSEGV, signal.SIGABRT])
def test_worker_crashes_in_mid_answer(cluster: Cluster, endless: str, number: signal.Signals) -> None:
    keeper = answering(cluster, endless)

    cluster.only("llm-worker-rbee").send_signal(number)

    assert keeper.wait() == 6, keeper.stderr
    assert "WORKER_CRASHED" in keeper.stderr, keeper.stderr
    assert signal.Signals(number).name in keeper.stderr
    assert "incomplete" in keeper.stderr


@pytest.mark.parametrize("program", ["queen-rbee", "rbee-hive", "llm-worker-rbee"])
def test_a_program_told_to_end_completes_the_answer_first(cluster: Cluster, endless: str, program: str) -> None:
    cluster.env |= {"RBEE_WORKER_N_CTX": "2048"} | _LONG_DRAIN  # an answer that fits into the drain, however slow
    keeper = answering(cluster, endless)

    cluster.only(program).terminate()

    assert keeper.wait() == 0, keeper.stderr
    assert "context is full" in keeper.stderr, "the whole answer, as far as its context reached"
    lines = keeper.stderr.splitlines()
    assert sum("shutting down gracefully" in line for line in lines) <= 1, "no line twice"


@pytest.mark.parametrize("program", ["queen-rbee", "rbee-hive", "llm-worker-rbee"])
def test_an_answer_longer_than_the_drain_is_cut_and_said_to_be(cluster: Cluster, endless: str, program: str) -> None:
    cluster.env |= {"RBEE_CLOCK_WORKER_DRAIN_S": "0.1"}
    keeper = answering(cluster, endless)

    cluster.only(program).terminate()

    assert keeper.wait() == 6, keeper.stderr
    assert "incomplete" in keeper.stderr


@pytest.mark.parametrize("program", ["queen-rbee", "rbee-hive", "llm-worker-rbee"])
@pytest.mark.parametrize("number", [KILL, TERM])
def test_an_idle_program_dies(cluster: Cluster, program: str, number: signal.Signals) -> None:
    cluster.standing_queen()
    assert cluster.keeper("infer", "hello").wait() == 0
    cluster.seen_alive("queen-rbee", "rbee-hive", "llm-worker-rbee")

    cluster.only(program).send_signal(number)
    cluster.killed = {"queen-rbee"} if program == "queen-rbee" else set()

    below = {
        "queen-rbee": ("queen-rbee", "rbee-hive", "llm-worker-rbee"),
        "rbee-hive": ("rbee-hive", "llm-worker-rbee"),
    }
    cluster.all_gone(3 if number == KILL else 20, *below.get(program, (program,)))
    if program != "queen-rbee":
        again = cluster.keeper("infer", "hello")
        assert again.wait() == 0, again.stderr
        assert cluster.keeper("queen", "stop").wait() == 0


def test_a_stopped_queen_loses_her_hive_by_its_lease(cluster: Cluster) -> None:
    cluster.env |= {"RBEE_TIME_SCALE": "0.3"}
    cluster.standing_queen()
    assert cluster.keeper("infer", "hello").wait() == 0
    queen = cluster.only("queen-rbee")

    queen.suspend()
    took_s = cluster.all_gone(15 * 0.3 + 5, "rbee-hive", "llm-worker-rbee")
    queen.resume()

    assert took_s > 1, "a lease, not a race"
    assert cluster.keeper("infer", "hello").wait() == 0
    assert cluster.keeper("queen", "stop").wait() == 0


def test_a_stopped_hive_loses_its_worker_by_its_lease(cluster: Cluster) -> None:
    cluster.env |= {"RBEE_TIME_SCALE": "0.3"}
    cluster.standing_queen()
    assert cluster.keeper("infer", "hello").wait() == 0
    hive = cluster.only("rbee-hive")

    hive.suspend()
    cluster.all_gone(10 * 0.3 + 5, "llm-worker-rbee")
    hive.resume()

    time.sleep(0.5)
    assert cluster.keeper("queen", "stop").wait() == 0


def test_ctrl_z_of_the_keeper_does_not_kill_the_queen(cluster: Cluster, endless: str) -> None:
    keeper = answering(cluster, endless, max_tokens=6000)  # its end is waited for

    keeper.process.send_signal(signal.SIGSTOP)  # what Ctrl+Z does; TSTP itself is void in an orphaned process group
    time.sleep(4)  # longer than the grace after the last hold
    cluster.seen_alive("queen-rbee", "rbee-hive")
    keeper.process.send_signal(signal.SIGCONT)

    assert keeper.wait() == 0, keeper.stderr


def test_ctrl_c_cancels_and_puts_all_back_to_sleep(cluster: Cluster, endless: str) -> None:
    keeper = answering(cluster, endless)

    keeper.process.send_signal(signal.SIGINT)

    assert keeper.wait() == 130, keeper.stderr
    cluster.all_gone(2)


def test_time_out_cancels_and_puts_all_back_to_sleep(cluster: Cluster, endless: str) -> None:
    cluster.env |= {"RBEE_WORKER_N_CTX": "40000"}  # room for an answer that takes far longer than the time-out
    keeper = cluster.keeper("infer", "go on", "--model", endless, "--max-tokens", "30000", "--timeout", "3")

    assert keeper.wait() == 124, keeper.stderr
    cluster.all_gone(2)

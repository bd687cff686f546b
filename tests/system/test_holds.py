"""An ephemeral queen is held, not owned: she lives while any keeper needs her, and never longer."""

import signal

import pytest
from tests.support.cluster import Cluster, Running, wait_until
from tests.support.races import race


def begun(keeper: Running) -> Running:
    wait_until(lambda: keeper.stdout_bytes, 60, f"the first token\n{keeper.stderr}")
    return keeper


@pytest.mark.parametrize("end", ["ends first", "is killed", "is interrupted"])
def test_two_keepers_share_a_queen_and_the_first_goes(cluster: Cluster, endless: str, end: str) -> None:
    cluster.env |= {"RBEE_WORKER_N_CTX": "16000"}  # the first answer outlasts the second keeper's start anywhere
    args = ("infer", "go on", "--model", endless, "--max-tokens")
    first = begun(cluster.start("rbee-keeper", *args, "6000" if end == "ends first" else "15000"))
    second = cluster.start("rbee-keeper", *args, "1500")
    second.wait_for("connected to queen's event stream")
    queen = cluster.only("queen-rbee")

    if end == "is killed":
        first.process.kill()
    elif end == "is interrupted":
        first.process.send_signal(signal.SIGINT)
    first.wait()

    assert second.wait() == 0, second.stderr
    assert len(second.stdout) > 1000
    assert "waking her" not in second.stderr
    assert not queen.is_running() or queen.pid not in [process.pid for process in cluster.processes()]
    cluster.all_gone(5)


def test_keepers_started_together_wake_one_queen(cluster: Cluster) -> None:
    keepers = [cluster.start("rbee-keeper", "infer", "hello") for _ in range(6)]

    assert [keeper.wait() for keeper in keepers] == [0] * 6, "\n\n".join(keeper.stderr for keeper in keepers)
    wakers = [keeper for keeper in keepers if "waking her" in keeper.stderr]
    assert len(wakers) >= 1
    cluster.all_gone(10)


@pytest.mark.parametrize("seed", range(6))
def test_races_of_keepers_that_come_go_and_die(cluster: Cluster, seed: int) -> None:
    """`scripts/bench races` runs any number of these."""
    wrong = [keeper for keeper in race(cluster, seed) if not keeper.is_right]

    assert not wrong, "\n\n".join(f"{keeper.fate}: {keeper.status}\n{keeper.stderr}" for keeper in wrong)
    cluster.all_gone(10)

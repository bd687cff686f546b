"""`queen start|stop|status`, `status`, `token`: what they print, and what they leave alone."""

import json
import signal
import time

import pytest
from tests.support.keeper_lab import KeeperLab


def test_a_standing_queen_from_start_to_stop(lab: KeeperLab) -> None:
    started = lab.keeper("queen", "start")

    assert started.status == 0
    url = started.out.decode().strip()
    assert url == lab.notes("listening")[0]["url"]
    assert len(lab.living()) == 1

    again = lab.keeper("queen", "start", "--quiet")
    assert (again.status, again.out.decode().strip(), again.err) == (0, url, "")

    answered = lab.keeper("infer", "hello", "--quiet")
    assert answered.status == 0
    assert len(lab.notes("listening")) == 1

    stopped = lab.keeper("queen", "stop")
    assert (stopped.status, stopped.out) == (0, b"queen is stopped\n")
    assert stopped.err.splitlines() == ["keeper: asking queen to cascade shutdown", "queen: goodbye"]
    assert not lab.living()


def test_stopping_who_does_not_run_is_no_failure(lab: KeeperLab) -> None:
    done = lab.keeper("queen", "stop")

    assert (done.status, done.out) == (0, b"queen is not running\n")


def test_a_start_that_fails_says_what_the_queen_said(lab: KeeperLab) -> None:
    lab.script_queen("--fail-start", "PORT_IN_USE")

    done = lab.keeper("queen", "start")

    assert done.status == 3
    assert "error: scripted (PORT_IN_USE)\n  next: do something else" in done.err
    assert not lab.living()


def test_ctrl_c_while_she_starts_leaves_nothing(lab: KeeperLab) -> None:
    lab.script_queen("--start-s", "5")
    keeper = lab.start_keeper("queen", "start")
    lab.until(lambda: len(lab.living()) > 1)

    keeper.send_signal(signal.SIGINT)

    assert keeper.wait(10) == 130
    assert keeper.stderr is not None
    assert b"Traceback" not in keeper.stderr.read()
    lab.assert_nothing_left()


@pytest.mark.parametrize("number", range(12))
def test_ctrl_c_in_the_moment_of_her_birth_leaves_nothing(lab: KeeperLab, number: int) -> None:
    """An interruption while her process is being made must not lose it: where it could, six of forty were lost."""
    lab.script_queen("--start-s", "60")
    keeper = lab.start_keeper("queen", "start")
    log = lab.home / "logs" / "queen-rbee.out"
    while not log.exists():  # made right before the fork
        time.sleep(0.0002)
    time.sleep(number % 3 * 0.0004)

    keeper.send_signal(signal.SIGINT)

    assert keeper.wait(20) == 130
    lab.assert_nothing_left()


def test_reading_commands_wake_nobody(lab: KeeperLab) -> None:
    for command in (["status"], ["queen", "status"]):
        asleep = lab.keeper(*command)
        assert asleep.status == 3
        assert asleep.out.startswith(b"queen is asleep")
        as_json = lab.keeper(*command, "--json")
        assert (as_json.status, json.loads(as_json.out)) == (3, {"queen": None})
    assert not lab.notes("listening")


def test_status_shows_the_cluster(lab: KeeperLab) -> None:
    url = lab.start_queen()

    shown = lab.keeper("status")
    assert shown.status == 0
    queen, node_header, node, worker_header, worker = shown.out.decode().splitlines()
    assert queen.startswith(f"queen healthy at {url} (standing, version 0.1.0, pid ")
    assert node_header.split() == ["NODE", "STATE", "DEVICES", "WORKERS"]
    assert node.split("  ")[:3] == ["localhost", "online", "cpu: 8 cores, 16 GB of 32 GB free"]
    assert worker_header.startswith("WORKER")
    assert worker.split()[:3] == ["w1", "idle", "builtin:storyteller"]

    document = json.loads(lab.keeper("status", "--json").out)
    assert document["queen"]["url"] == url
    assert [entry["id"] for entry in document["workers"]] == ["w1"]


def test_a_wrong_token_is_4(lab: KeeperLab) -> None:
    lab.start_queen()
    wrong = lab.root / "wrong"
    wrong.touch(0o600)
    wrong.write_text("not-the-token\n")

    done = lab.keeper("status", "--token-file", str(wrong))

    assert done.status == 4
    assert "(INVALID_API_KEY)" in done.err


def test_a_token_that_others_can_read_is_refused(lab: KeeperLab) -> None:
    loose = lab.root / "loose"
    loose.write_text("a-token\n")
    loose.chmod(0o644)

    done = lab.keeper("token", "--token-file", str(loose))

    assert (done.status, done.out) == (4, b"")
    assert "(FORBIDDEN)" in done.err


def test_token_makes_and_prints_one(lab: KeeperLab) -> None:
    first, second = lab.keeper("token"), lab.keeper("token")

    assert first.status == 0
    assert first.out == second.out == (lab.home / "token").read_bytes()


def test_an_unknown_setting_is_named(lab: KeeperLab) -> None:
    (lab.home / "config.toml").write_text("[keeper]\nqueen_ulr = 'http://x'\n")

    done = lab.keeper("status")

    assert done.status == 2
    assert "unknown keys in [keeper]: queen_ulr" in done.err

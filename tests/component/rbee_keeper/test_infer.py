"""`infer` from prompt to exit status: what stands on stdout, what on stderr, and what is left behind."""

import signal
import subprocess
from pathlib import Path

import pytest
from tests.support.fake_queen import ANSWER
from tests.support.keeper_lab import KeeperLab, json_lines, text_of

TEXT = "".join(ANSWER).encode()


def test_wakes_a_queen_and_puts_her_back_to_sleep(lab: KeeperLab) -> None:
    done = lab.keeper("infer", "hello")

    assert (done.status, done.out) == (0, TEXT)
    lines = done.err.splitlines()
    wanted = [
        "keeper: starting inference request for builtin:storyteller",
        "keeper: queen is asleep, waking her on a free port",
        "keeper: queen is awake and healthy",
        "keeper: connected to queen's event stream",
        "keeper: waiting in line, position 1: somebody else is served",
        "queen: picked cpu on localhost: [31mred",
        "loading model [##########] 100 % (1000 / 1000 ‰)",
        "keeper: asking queen to cascade shutdown",
        "queen: goodbye",
    ]
    positions = [next(n for n, line in enumerate(lines) if line.startswith(start)) for start in wanted]
    assert positions == sorted(positions)
    assert lines.count("queen: goodbye") == 1
    (task,) = lab.notes("task")
    assert task["body"] == {"prompt": "hello", "stream": True}
    assert lab.notes("shutdown")[0]["headers"]["x-correlation-id"] == task["headers"]["x-correlation-id"]
    assert not lab.living()


def test_leaves_a_standing_queen_standing(lab: KeeperLab) -> None:
    lab.start_queen()

    done = lab.keeper("infer", "hello", "--quiet")

    assert (done.status, done.out, done.err) == (0, TEXT, "")
    assert not lab.notes("shutdown")
    assert not lab.notes("held")
    assert len(lab.living()) == 1


def test_two_keepers_share_an_ephemeral_queen(lab: KeeperLab) -> None:
    lab.script_queen("--token-s", "0.2")
    first = lab.start_keeper("infer", "one")
    lab.until(lambda: lab.notes("task"))
    second = lab.start_keeper("infer", "two")

    assert first.wait(30) == 0
    assert second.wait(30) == 0

    assert second.stdout is not None
    assert second.stdout.read() == TEXT
    assert len(lab.notes("listening")) == 1
    lab.assert_nothing_left()


def test_every_option_reaches_the_queen(lab: KeeperLab) -> None:
    lab.start_queen()
    options = ["--node", "n", "--model", "builtin:x", "--backend", "cpu", "--device", "1", "--max-tokens", "5"]
    options += ["--temperature", "0.5", "--top-p", "0.9", "--top-k", "3", "--min-p", "0.1", "--seed", "7"]
    options += ["--stop", "a", "--stop", "b", "--template", "raw", "--system", "be kind"]

    done = lab.keeper("infer", "-p", "hi", *options)

    assert done.status == 0
    assert lab.notes("task")[0]["body"] == {
        "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}],
        "node": "n",
        "model": "builtin:x",
        "backend": "cpu",
        "device": 1,
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "min_p": 0.1,
        "seed": 7,
        "stop": ["a", "b"],
        "template": "raw",
        "stream": True,
    }


@pytest.mark.parametrize("arguments", [[], ["-"], ["--prompt", "-"]])
def test_the_prompt_may_come_from_stdin(lab: KeeperLab, arguments: list[str]) -> None:
    lab.start_queen()

    done = lab.keeper("infer", *arguments, stdin="zwei\nZeilen ü\n".encode())

    assert done.status == 0
    assert lab.notes("task")[0]["body"]["prompt"] == "zwei\nZeilen ü"


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        pytest.param([], b"", "the prompt is empty", id="empty stdin"),
        pytest.param([], b"\xff\xfe", "not UTF-8", id="binary"),
        pytest.param([], b"x" * 1_100_000, "larger than 1 MiB (PAYLOAD_TOO_LARGE)", id="too large"),
        pytest.param(["a", "-p", "b"], None, "given twice", id="twice"),
        pytest.param(["a", "--max-tokens", "0"], None, "max_tokens", id="no tokens"),
        pytest.param(["a", "--max-tokens", "1000000000"], None, "max_tokens", id="too many tokens"),
        pytest.param(["a", "--max-tokens", "many"], None, "Invalid value for '--max-tokens'", id="not a number"),
        pytest.param(["a", "--temperature", "nan"], None, "temperature", id="NaN"),
        pytest.param(["a", "--backend", "tpu"], None, "backend", id="unknown backend"),
        pytest.param(["a", "-m", "no such form!"], None, "is not a model reference", id="model reference"),
        pytest.param(["a", "--timeout", "-1"], None, "--timeout must be", id="time-out"),
        pytest.param(["a", "--queen-url", "ftp://x"], None, "is not the address of a queen", id="URL"),
        pytest.param(["a", "--no-such-option"], None, "No such option", id="option"),
    ],
)
def test_wrong_usage_is_2_and_wakes_nobody(
    lab: KeeperLab, arguments: list[str], stdin: bytes | None, said: str
) -> None:
    done = lab.keeper("infer", *arguments, stdin=stdin)

    assert (done.status, done.out) == (2, b"")
    assert said in done.err
    assert "Traceback" not in done.err
    assert not lab.notes("listening")


@pytest.mark.parametrize(
    ("code", "status"),
    [("NOT_SUPPORTED", 2), ("MODEL_NOT_FOUND", 1), ("NODE_UNREACHABLE", 3), ("FORBIDDEN", 4), ("QUEUE_FULL", 5)],
)
def test_a_refusal_is_told_with_its_next_step(lab: KeeperLab, code: str, status: int) -> None:
    lab.script_queen("--refuse", code)

    done = lab.keeper("infer", "hello", "--quiet")

    assert (done.status, done.out) == (status, b"")
    assert done.err == f"error: scripted ({code})\n  next: do something else\n"
    lab.assert_nothing_left()


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        pytest.param(["--die-after", "3"], "QUEEN_LOST", id="the queen is killed"),
        pytest.param(["--truncate-after", "3"], "STREAM_TRUNCATED", id="the stream is cut"),
        pytest.param(["--error-after", "3"], "WORKER_CRASHED", id="the worker dies"),
    ],
)
def test_a_break_in_mid_answer_is_6_and_said_to_be_incomplete(lab: KeeperLab, flags: list[str], code: str) -> None:
    lab.script_queen(*flags)

    done = lab.keeper("infer", "hello")

    assert (done.status, done.out) == (6, b"Once upon a")
    assert f"({code}" in done.err
    assert "what was printed is incomplete" in done.err
    lab.assert_nothing_left()


def test_the_death_of_the_queen_is_named(lab: KeeperLab) -> None:
    lab.script_queen("--die-after", "0")

    done = lab.keeper("infer", "hello")

    assert done.status == 3
    assert "killed by SIGKILL" in done.err


def test_nonsense_from_the_queen_is_said_to_be_that(lab: KeeperLab) -> None:
    lab.script_queen("--garbage")

    done = lab.keeper("infer", "hello")

    assert done.status == 3
    assert "(BAD_PEER" in done.err
    lab.assert_nothing_left()


def test_a_queen_that_shuts_down_is_waited_for_and_a_new_one_woken(lab: KeeperLab) -> None:
    lab.script_queen("--refuse-first", "--shutdown-s", "0.5")

    done = lab.keeper("infer", "hello")

    assert (done.status, done.out) == (0, TEXT)
    assert "queen is shutting down; waking a new one when she is gone" in done.err
    first, second = lab.notes("listening")
    assert first["pid"] != second["pid"]
    lab.assert_nothing_left()


def test_a_stranger_on_the_port_is_named(lab: KeeperLab) -> None:
    url = lab.start_queen("--stranger")
    port = url.rpartition(":")[2]

    done = lab.keeper("infer", "hello", env={"RBEE_QUEEN_PORT": port})

    assert done.status == 3
    assert f"port {port} is held by" in done.err
    assert f"(pid {lab.started[0].pid}), which is not a queen (PORT_IN_USE)" in done.err


def test_a_url_is_never_replaced_by_a_queen_of_our_own(lab: KeeperLab) -> None:
    done = lab.keeper("infer", "hello", env={"RBEE_QUEEN_URL": "http://127.0.0.1:1"})

    assert done.status == 3
    assert "(QUEEN_LOST)" in done.err
    assert not lab.notes("listening")


def test_a_queen_that_cannot_start_says_why(lab: KeeperLab) -> None:
    lab.script_queen("--fail-start", "PORT_IN_USE")

    done = lab.keeper("infer", "hello")

    assert done.status == 3
    assert "error: scripted (PORT_IN_USE)" in done.err
    lab.assert_nothing_left()


def test_a_slow_queen_never_leaves_the_screen_silent(lab: KeeperLab) -> None:
    lab.script_queen("--start-s", "2.5", "--first-token-s", "2")

    done = lab.keeper("infer", "hello")

    assert done.status == 0
    assert "still waiting for the queen to wake up" in done.err
    assert "still waiting for the queen to find a worker" in done.err


def test_json_is_every_event_on_stdout_and_nothing_else(lab: KeeperLab) -> None:
    done = lab.keeper("infer", "hello", "--json")

    events = json_lines(done.out)
    assert (done.status, done.err) == (0, "")
    assert text_of(events).encode() == TEXT
    kinds = [event["type"] for event in events]
    assert {"narration", "queued", "progress", "started", "token", "end"} == set(kinds)
    assert kinds.count("end") == 1
    assert {event["actor"] for event in events if event["type"] == "narration"} == {"keeper", "queen"}


@pytest.mark.parametrize(
    ("flags", "code"), [(["--die-after", "3"], "QUEEN_LOST"), (["--error-after", "3"], "WORKER_CRASHED")]
)
def test_json_has_one_last_event_whoever_failed(lab: KeeperLab, flags: list[str], code: str) -> None:
    lab.script_queen(*flags)

    done = lab.keeper("infer", "hello", "--json")

    errors = [event for event in json_lines(done.out) if event["type"] in {"error", "end"}]
    assert [error["code"] for error in errors] == [code]
    assert done.status == 6


def test_a_reader_that_has_enough_ends_everything_quietly(lab: KeeperLab) -> None:
    lab.script_queen("--token-s", "0.1")
    keeper = lab.start_keeper("infer", "hello")
    assert keeper.stdout is not None
    assert keeper.stderr is not None

    assert keeper.stdout.read(4) == b"Once"
    keeper.stdout.close()

    assert keeper.wait(30) == 141
    assert b"error" not in keeper.stderr.read()
    assert lab.notes("hung_up")
    lab.assert_nothing_left()


def test_a_full_disk_behind_stdout_is_an_error(lab: KeeperLab) -> None:
    with Path("/dev/full").open("wb") as full:
        keeper = lab.start_keeper("infer", "hello", stdout=full)

        assert keeper.wait(30) == 5

    assert keeper.stderr is not None
    assert b"(DISK_FULL)" in keeper.stderr.read()
    lab.assert_nothing_left()


@pytest.mark.parametrize("environment", [{"LANG": "C"}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, {"TERM": "dumb"}])
def test_any_locale_gets_the_same_bytes(lab: KeeperLab, environment: dict[str, str]) -> None:
    done = lab.keeper("infer", "grüße", env=environment)

    assert (done.status, done.out) == (0, TEXT)
    assert lab.notes("task")[0]["body"]["prompt"] == "grüße"


def test_control_characters_reach_a_pipe_untouched(lab: KeeperLab) -> None:
    lab.script_queen("--answer", '["a\\u0000b\\u001b[2J", "c"]')

    done = lab.keeper("infer", "hello")

    assert (done.status, done.out) == (0, b"a\0b\x1b[2Jc")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_cancels_the_task_and_puts_the_queen_to_sleep(
    lab: KeeperLab, number: signal.Signals, status: int
) -> None:
    lab.script_queen("--token-s", "0.2")
    keeper = lab.start_keeper("infer", "hello")
    assert keeper.stdout is not None
    assert keeper.stderr is not None
    assert keeper.stdout.read(4) == b"Once"

    keeper.send_signal(number)

    assert keeper.wait(30) == status
    assert b"interrupted; cancelling the task" in keeper.stderr.read()
    assert lab.notes("hung_up")
    assert lab.notes("gone")
    lab.assert_nothing_left()


def test_ctrl_c_while_the_queen_wakes_leaves_nothing(lab: KeeperLab) -> None:
    lab.script_queen("--start-s", "5")
    keeper = lab.start_keeper("infer", "hello")
    lab.until(lambda: len(lab.living()) > 1)

    keeper.send_signal(signal.SIGINT)

    assert keeper.wait(30) == 130
    assert not lab.living()


def test_a_second_ctrl_c_leaves_at_once(lab: KeeperLab) -> None:
    lab.script_queen("--token-s", "0.2", "--shutdown-s", "5")
    keeper = lab.start_keeper("infer", "hello")
    assert keeper.stdout is not None
    assert keeper.stdout.read(4) == b"Once"
    keeper.send_signal(signal.SIGINT)
    lab.until(lambda: lab.notes("shutdown"))

    keeper.send_signal(signal.SIGINT)

    assert keeper.wait(3) == 130
    lab.assert_nothing_left()


def test_a_time_out_is_124(lab: KeeperLab) -> None:
    lab.script_queen("--token-s", "1")

    done = lab.keeper("infer", "hello", "--timeout", "5")

    assert done.status == 124
    assert TEXT.startswith(done.out)
    assert "not complete within 5.0 s (REQUEST_TIMEOUT)" in done.err
    assert lab.notes("hung_up")
    lab.assert_nothing_left()


def test_a_queen_that_will_not_go_is_ended(lab: KeeperLab) -> None:
    lab.script_queen("--deaf")

    done = lab.keeper("infer", "hello", env={"RBEE_CLOCK_KEEPER_DRAIN_S": "1"})

    assert done.status == 0
    assert "queen does not go: ending her process" in done.err
    lab.assert_nothing_left()


def test_a_cancelled_task_is_no_success(lab: KeeperLab) -> None:
    lab.script_queen("--stop-reason", "CANCELLED")

    done = lab.keeper("infer", "hello")

    assert done.status == 6
    assert "the task was cancelled (CANCELLED)" in done.err


def test_an_answer_that_was_cut_off_says_so(lab: KeeperLab) -> None:
    lab.script_queen("--stop-reason", "MAX_TOKENS")

    done = lab.keeper("infer", "hello")

    assert done.status == 0
    assert "warning: the answer was cut off at --max-tokens" in done.err


def test_ctrl_z_does_not_stop_the_queen(lab: KeeperLab) -> None:
    lab.script_queen("--token-s", "0.1")
    keeper = lab.start_keeper("infer", "hello", stderr=subprocess.DEVNULL)
    assert keeper.stdout is not None
    assert keeper.stdout.read(4) == b"Once"

    keeper.send_signal(signal.SIGSTOP)
    lab.until(lambda: lab.notes("answered"))
    keeper.send_signal(signal.SIGCONT)

    assert keeper.stdout.read() == TEXT[4:]
    assert keeper.wait(30) == 0
    lab.assert_nothing_left()

"""The keeper on a real terminal: its own session, its own keys."""

import os
import signal
import subprocess

from tests.support.keeper_lab import KeeperLab
from tests.support.keeper_terminal import Terminal


def test_lines_stand_around_the_text_never_in_it(lab: KeeperLab, terminals: list[Terminal]) -> None:
    lab.script_queen("--narrate-every", "3", "--answer", '["Once", " upon", "\\u001b[2J", " a", " time", "."]')
    terminal = Terminal(lab, "infer", "hello")
    terminals.append(terminal)

    assert terminal.wait() == 0

    seen = terminal.read()
    assert "[keeper] 🚀 starting inference request" in seen
    assert "Once upon[2J a time.\n[queen] 👑 generated 2 tokens\n[queen] 👑 generated 5 tokens\n" in seen
    assert "\x1b[2J" not in terminal.raw
    assert "loading model [##########] 100 %" in seen


def test_ctrl_c_is_for_the_keeper_alone(lab: KeeperLab, terminals: list[Terminal]) -> None:
    lab.script_queen("--token-s", "0.2")
    terminal = Terminal(lab, "infer", "hello")
    terminals.append(terminal)
    lab.until(lambda: "Once" in terminal.read())

    os.write(terminal.master, b"\x03")

    assert terminal.wait() == 128 + signal.SIGINT
    assert "interrupted; cancelling the task" in terminal.read()
    assert "[queen] goodbye" in terminal.read()
    assert "Traceback" not in terminal.read()
    lab.assert_nothing_left()


def test_no_prompt_on_a_terminal_is_a_question_of_usage(lab: KeeperLab, terminals: list[Terminal]) -> None:
    terminal = Terminal(lab, "infer")
    terminals.append(terminal)

    assert terminal.wait() == 2
    assert "there is no prompt (INVALID_REQUEST)" in terminal.read()


def test_answers_to_a_terminal_that_closes_end_quietly(lab: KeeperLab) -> None:
    lab.script_queen("--token-s", "0.2")
    terminal = Terminal(lab, "infer", "hello")
    lab.until(lambda: "Once" in terminal.read())

    os.close(terminal.master)

    assert terminal.process.wait(30) in {128 + signal.SIGHUP, 141}
    lab.assert_nothing_left()


def test_a_script_may_hang_up_stderr(lab: KeeperLab) -> None:
    keeper = lab.start_keeper("infer", "hello", stderr=subprocess.PIPE)
    assert keeper.stderr is not None
    assert keeper.stdout is not None
    keeper.stderr.close()

    assert keeper.stdout.read().startswith(b"Once upon")
    assert keeper.wait(30) == 0

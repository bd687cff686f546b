"""What the user sees, on real pipes and pseudo-terminals."""

import json
import os
import pty
import termios
from collections.abc import Generator
from dataclasses import dataclass

import anyio
import pytest

from rbee_keeper.output import Output, nobody_reads
from rbee_keeper.render import Form, Screen, Style
from rbee_shared.errors import InstallFailedError, InvalidRequestError, QueenLostError
from rbee_shared.narration import Narration

pytestmark = pytest.mark.allow_blocking("lines for a person are written at once, whole: they are short and rare")
SILENCE_S = 0.2
XTERM = {"TERM": "xterm", "NO_COLOR": "1"}


@dataclass
class Sink:
    """One end to write to, and what arrives at the other."""

    write_end: int
    read_end: int

    def seen(self) -> str:
        os.set_blocking(self.read_end, False)
        data = b""
        try:
            while chunk := os.read(self.read_end, 65536):
                data += chunk
        except BlockingIOError:
            pass
        return data.decode()


@pytest.fixture
def sinks() -> Generator[dict[str, Sink]]:
    """`out` and `err` are pipes, `tty` is a terminal that leaves newlines alone."""
    made = {}
    for name in ("out", "err"):
        read_end, write_end = os.pipe()
        made[name] = Sink(write_end, read_end)
    master, slave = pty.openpty()
    attributes = termios.tcgetattr(slave)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    made["tty"] = Sink(slave, master)
    yield made
    for sink in made.values():
        os.close(sink.write_end)
        os.close(sink.read_end)


def screen_on(out: Sink, err: Sink, style: Style | None = None, environment: dict[str, str] | None = None) -> Screen:
    return Screen(
        Output(out.write_end),
        Output(err.write_end),
        style or Style(),
        silence_s=SILENCE_S,
        environment=XTERM if environment is None else environment,
    )


def line(human: str, *, level: str = "info") -> Narration:
    return Narration("queen", "say", human, cute="\N{CROWN}", level=level)


async def test_pipes_get_the_exact_answer_and_plain_lines(sinks: dict[str, Sink]) -> None:
    screen = screen_on(sinks["out"], sinks["err"])

    screen.say(line("one"))
    await screen.answer("a\x1b[2J\0")
    screen.say(line("two", level="warning"))
    await screen.answer("b")
    screen.end_answer()

    assert sinks["out"].seen() == "a\x1b[2J\0b"
    assert sinks["err"].seen() == "queen: one\nqueen: warning: two\n"


async def test_a_line_never_splits_the_answer_on_a_terminal(sinks: dict[str, Sink]) -> None:
    screen = screen_on(sinks["tty"], sinks["tty"])

    screen.say(line("before"))
    await screen.answer("Once upon")
    screen.say(line("between"))
    await screen.answer(" a time\nthere")
    screen.say(line("held"))
    await screen.answer(" was\n")
    await screen.answer("the end")
    screen.end_answer()
    screen.say(line("after"))

    assert sinks["tty"].seen() == (
        "[queen] 👑 before\nOnce upon a time\nthere was\n[queen] 👑 between\n[queen] 👑 held\n"
        "the end\n[queen] 👑 after\n"
    )


async def test_nor_in_a_pipe_that_both_share(sinks: dict[str, Sink]) -> None:
    screen = screen_on(sinks["out"], sinks["out"])

    await screen.answer("Once")
    screen.say(line("between"))
    await screen.answer(" upon")
    screen.end_answer()

    assert sinks["out"].seen() == "Once upon\nqueen: between\n"


async def test_what_is_held_is_shown_when_nothing_else_moves(sinks: dict[str, Sink]) -> None:
    screen = screen_on(sinks["tty"], sinks["tty"])
    async with anyio.create_task_group() as group:
        group.start_soon(screen.watch_silence)
        await screen.answer("Once")
        screen.say(line("the worker died; another goes on"))
        await anyio.sleep(SILENCE_S * 2)
        group.cancel_scope.cancel()

    assert sinks["tty"].seen() == "Once\n[queen] 👑 the worker died; another goes on\n"


async def test_silence_is_explained(sinks: dict[str, Sink]) -> None:
    screen = screen_on(sinks["out"], sinks["err"])
    async with anyio.create_task_group() as group:
        group.start_soon(screen.watch_silence)
        screen.wait_for("the queen")
        await anyio.sleep(SILENCE_S * 2.5)
        group.cancel_scope.cancel()

    said = sinks["err"].seen().splitlines()
    assert len(said) == 2
    assert said[0].startswith("keeper: still waiting for the queen (2")


@pytest.mark.parametrize("text", ["\x1b]0;title\x07", "\x9b31m", "a\rb", "\u202eevil"])
async def test_nothing_steers_a_terminal(sinks: dict[str, Sink], text: str) -> None:
    screen = screen_on(sinks["tty"], sinks["tty"])

    await screen.answer(f"{text}\n")
    screen.say(line(text))
    screen.progress({"stage": text, "done": 1, "total": 2, "unit": text})
    screen.complain(QueenLostError(text, hint=text))

    seen = sinks["tty"].seen().replace("\r\x1b[K", "")
    assert not set("\x1b\x07\x9b\r\u202e") & set(seen)


async def test_token_text_that_is_no_text_does_not_crash(sinks: dict[str, Sink]) -> None:
    screen = screen_on(sinks["out"], sinks["err"])

    await screen.answer("a\ud800b")

    assert sinks["out"].seen() == "a?b"


@pytest.mark.parametrize(
    ("environment", "start"),
    [({"TERM": "xterm"}, "\x1b[1;31merror:\x1b[0m gone"), (XTERM, "error: gone"), ({"TERM": "dumb"}, "error: gone")],
)
def test_colour_only_where_it_is_welcome(sinks: dict[str, Sink], environment: dict[str, str], start: str) -> None:
    screen_on(sinks["out"], sinks["tty"], environment=environment).complain(QueenLostError("gone"))

    assert sinks["tty"].seen().startswith(start)


def test_a_dumb_terminal_gets_plain_lines(sinks: dict[str, Sink]) -> None:
    screen_on(sinks["tty"], sinks["tty"], environment={"TERM": "dumb"}).say(line("hello"))

    assert sinks["tty"].seen() == "queen: hello\n"


def test_several_faults_stand_on_a_line_each(sinks: dict[str, Sink]) -> None:
    faults = [{"field": "a", "message": "wrong"}, {"field": "b", "message": "worse"}]
    error = InvalidRequestError("a: wrong; b: worse", hint="mend it", details={"errors": faults})

    screen_on(sinks["out"], sinks["err"]).complain(error, incomplete=True)

    assert sinks["err"].seen() == (
        "error: a: wrong; b: worse (INVALID_REQUEST)\n  - a: wrong\n  - b: worse\n  next: mend it\n"
        "  what was printed is incomplete\n"
    )


@pytest.mark.parametrize("name", ["last_lines", "last_words"])
def test_what_a_program_said_last_stands_above_the_next_step(sinks: dict[str, Sink], name: str) -> None:
    lines = [*(f"line {number}" for number in range(9)), "\x1b[31mERROR: token=abcdefgh12345678", 7]
    error = InstallFailedError("mac: it broke", hint="Read the lines above.", details={name: lines})

    screen_on(sinks["out"], sinks["err"], Style(form=Form.EVENTS)).complain(error, as_event=True)

    seen = sinks["err"].seen().splitlines()
    assert seen[0] == "error: mac: it broke (INSTALL_FAILED)"
    assert seen[1:7] == [f"  | line {number}" for number in range(3, 9)]
    assert seen[7].startswith("  | [31mERROR: token=<")
    assert seen[8:] == ["  next: Read the lines above."]


@pytest.mark.parametrize("lines", [None, "text", 7, {}, [], [7, None]])
def test_last_lines_that_are_none_are_not_shown(sinks: dict[str, Sink], lines: object) -> None:
    screen_on(sinks["out"], sinks["err"]).complain(QueenLostError("gone", hint="look", details={"last_lines": lines}))

    assert sinks["err"].seen() == "error: gone (QUEEN_LOST)\n  next: look\n"


def test_progress_overwrites_itself_on_a_terminal_and_is_cleared(sinks: dict[str, Sink]) -> None:
    screen = screen_on(sinks["out"], sinks["tty"])

    for done in (0, 268_000_000):
        screen.progress({"stage": "download", "done": done, "total": 669_000_000, "unit": "bytes", "eta_s": 9})
    screen.say(line("done"))

    assert sinks["tty"].seen() == (
        "\r\x1b[Kdownloading [----------] 0 % (0 B / 669 MB) 9.0 s left"
        "\r\x1b[Kdownloading [####------] 40 % (268 MB / 669 MB) 9.0 s left"
        "\r\x1b[K[queen] 👑 done\n"
    )


def test_progress_is_a_line_now_and_then_elsewhere(sinks: dict[str, Sink]) -> None:
    screen = screen_on(sinks["out"], sinks["err"])

    for done in range(0, 1001, 10):
        screen.progress({"stage": "load", "done": done, "total": 1000, "unit": "layers"})
    screen.progress({"stage": "load", "done": "x", "total": 0})

    shown = [text.split("]")[1].split(" (")[0] for text in sinks["err"].seen().splitlines()]
    assert shown == [" 0 %", " 25 %", " 50 %", " 75 %", " 100 %"]


async def test_quiet_is_the_answer_and_errors(sinks: dict[str, Sink]) -> None:
    screen = screen_on(sinks["out"], sinks["err"], Style(quiet=True))

    screen.say(line("hush"))
    screen.progress({"stage": "load", "done": 1, "total": 2})
    await screen.answer("a")
    screen.complain(QueenLostError("gone", hint="look"))

    assert sinks["out"].seen() == "a"
    assert sinks["err"].seen() == "error: gone (QUEEN_LOST)\n  next: look\n"


async def test_json_is_one_object_a_line_escaped(sinks: dict[str, Sink]) -> None:
    screen = screen_on(sinks["out"], sinks["err"], Style(form=Form.EVENTS))

    screen.say(line("hello"))
    await screen.event("token", {"t": "\x1b\u2028\n", "i": 0, "ids": [1]})
    screen.complain(QueenLostError("gone"), as_event=True)

    seen = sinks["out"].seen()
    assert seen.isascii()
    assert "\x1b" not in seen
    assert [json.loads(text)["type"] for text in seen.splitlines()] == ["narration", "token", "error"]


async def test_json_breaks_the_silence_as_seldom_as_text(sinks: dict[str, Sink]) -> None:
    screen = screen_on(sinks["out"], sinks["err"], Style(form=Form.EVENTS))
    async with anyio.create_task_group() as group:
        group.start_soon(screen.watch_silence)
        screen.wait_for("the queen")
        await anyio.sleep(SILENCE_S * 2.5)
        group.cancel_scope.cancel()

    assert len(sinks["out"].seen().splitlines()) == 2


async def test_a_reader_that_left_is_told_once(sinks: dict[str, Sink]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    screen = screen_on(Sink(write_end, read_end), sinks["err"])
    told: list[OSError] = []
    screen.on_output_lost(told.append)

    await screen.answer("a")
    await screen.answer("b")
    os.close(write_end)

    assert [nobody_reads(error) for error in told] == [True]


async def test_a_slow_reader_does_not_stop_the_event_loop(sinks: dict[str, Sink]) -> None:
    screen = screen_on(sinks["out"], sinks["err"])

    with anyio.move_on_after(SILENCE_S) as patience:
        await screen.answer("x" * 1_000_000)

    assert patience.cancelled_caught
    assert 0 < len(sinks["out"].seen()) < 1_000_000


def test_a_closed_descriptor_is_never_written_to() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    os.close(write_end)
    output = Output(write_end)
    told: list[OSError] = []
    output.on_failure = told.append

    output.write("a")

    assert len(told) == 1
    assert not output.is_same_as(output)


def test_progress_of_several_nodes_stands_one_below_the_other(sinks: dict[str, Sink]) -> None:
    screen = screen_on(sinks["out"], sinks["tty"])
    half = {"stage": "load", "done": 1, "total": 2, "unit": "x"}

    screen.progress(half, of="mac")
    screen.progress(half, of="p\x1bc\n")
    screen.say(line("done"))
    screen.progress(half, of="mac")
    screen.progress_over(of="mac")
    screen.progress_over(of="never")

    bar = "loading model [#####-----] 50 % (1 / 2 x)"
    both = f"mac: {bar}\npc: {bar}"
    up = "\r\x1b[K\x1b[A\x1b[K"
    assert sinks["tty"].seen() == f"\r\x1b[Kmac: {bar}\r\x1b[K{both}{up}[queen] 👑 done\n\r\x1b[K{both}{up}pc: {bar}"


def test_progress_of_several_nodes_is_named_where_nothing_can_be_drawn(sinks: dict[str, Sink]) -> None:
    screen = screen_on(sinks["out"], sinks["err"])

    for node in ("mac", "pc"):
        screen.progress({"stage": "load", "done": 1, "total": 2, "unit": "x"}, of=node)

    assert [text.split(":")[0] for text in sinks["err"].seen().splitlines()] == ["mac", "pc"]


def test_a_document_is_the_only_thing_on_stdout(sinks: dict[str, Sink]) -> None:
    screen = screen_on(sinks["out"], sinks["err"], Style(form=Form.DOCUMENT))

    screen.say(line("hello"))
    screen.progress({"stage": "load", "done": 1, "total": 2, "unit": "x"})
    screen.present({"a": "\u2028", "load": float("nan")}, lambda _: "never")
    screen.complain(QueenLostError("gone"), about="mac")

    assert sinks["out"].seen() == '{"a": "\\u2028", "load": "nan"}\n'
    said = sinks["err"].seen()
    assert said.startswith("queen: hello\nloading model [#####-----] 50 %")
    assert "error: mac: gone (QUEEN_LOST)" in said


def test_an_error_is_the_document_where_there_is_no_other(sinks: dict[str, Sink]) -> None:
    screen_on(sinks["out"], sinks["err"], Style(form=Form.DOCUMENT)).complain(QueenLostError("gone"), as_event=True)

    assert json.loads(sinks["out"].seen())["error"]["code"] == "QUEEN_LOST"


def test_a_result_cannot_steer_a_terminal_and_knows_its_width(sinks: dict[str, Sink]) -> None:
    screen = screen_on(sinks["tty"], sinks["err"])

    screen.present({}, lambda width: f"{width}\x1b[2J\ntwo")

    assert sinks["tty"].seen() == "80[2J\ntwo\n"

"""What the user sees: the answer on stdout and nothing else there, everything else on stderr.

Where both are the same terminal (or pipe), a line never splits the answer's text: lines are held back until the
answer stands at the start of a line, ends, or has been silent for `silence_s`. Nothing that a model or a peer sends
can steer a terminal. `--json` is one JSON document on stdout, or for a task every event, the keeper's own lines too, as
one JSON line on stdout.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rbee_keeper.output import Output
from rbee_keeper.progress import ProgressLine
from rbee_shared.errors import RbeeError
from rbee_shared.narration import Narration, Narrator, render
from rbee_shared.redaction import printable, printable_line, redact, redact_all
from rbee_shared.units import format_seconds

_CLEAR_LINE = "\r\x1b[K"
_CLEAR_LINE_ABOVE = "\x1b[A\x1b[K"
_RED, _PLAIN = "\x1b[1;31m", "\x1b[0m"
_MID_LINE_PATIENCE = 4
_NO_EDGE = 10_000  # columns: a file has no edge, nothing is folded there
_LAST_LINES = 8


class Form(Enum):
    """What stands on stdout."""

    TEXT = "text"
    EVENTS = "events"
    DOCUMENT = "document"


@dataclass(frozen=True)
class Style:
    """How much is shown, and in which form."""

    quiet: bool = False
    form: Form = Form.TEXT


class Screen:
    """Everything the keeper prints goes through here, in the order in which it is to be seen."""

    def __init__(
        self, out: Output, err: Output, style: Style, *, silence_s: float, environment: Mapping[str, str] = os.environ
    ) -> None:
        self._out = out
        self._err = err
        self._style = style
        self._silence_s = silence_s
        self._fancy = err.is_terminal and environment.get("TERM", "dumb") != "dumb"
        self._colour = self._fancy and not environment.get("NO_COLOR")
        self._shared = out.is_same_as(err)
        self._progress: dict[str, ProgressLine] = {}
        self._live: dict[str, str] = {}
        self._drawn = 0
        self._held: list[str] = []
        self._mid_line = False
        self._seen_at_s = time.monotonic()
        self._waiting_since_s = self._seen_at_s
        self._waiting_for: str | None = None
        self.answer_begun = False
        self.narrator = Narrator("keeper", self.say)
        """Speaks for the keeper itself."""

    def result(self, text: str) -> None:
        """Print what the user asked for."""
        self._out.write(text + "\n")

    def present(self, document: Mapping[str, Any], text: Callable[[int], str]) -> None:
        """Print what the user asked for: `text` for the width it is given, or the document."""
        self._clear_live()
        if self.wants_json:
            self.result(json.dumps(redact_all(document)))
        else:
            self.result(printable(text(self._out.width() if self._out.is_terminal else _NO_EDGE)))

    def put_question(self, question: str) -> None:
        """Show a question; what is typed goes on behind it. It is no time to say what is waited for."""
        self._clear_live()
        self.wait_for(None)
        self._err.write(printable(question))
        self._touch()

    def on_output_lost(self, tell: Callable[[OSError], None]) -> None:
        """Have `tell` called once when stdout cannot be written any more."""
        self._out.on_failure = tell

    def wait_for(self, what: str | None) -> None:
        """Name what the user waits for from now on; said when nothing has been visible for `silence_s`."""
        self._waiting_for = what
        self._waiting_since_s = time.monotonic()

    def say(self, narration: Narration) -> None:
        """Show one line of narration."""
        if self._style.form is Form.EVENTS:
            self._json("narration", narration.to_dict())
        elif not self._style.quiet:
            self._line(render(narration, fancy=self._fancy))

    async def answer(self, text: str) -> None:
        """Print a piece of the answer."""
        if not text:
            return
        self._clear_live()
        if not self._mid_line:
            self._release()
        text = printable(text) if self._out.is_terminal else text
        self.answer_begun = True
        await self._out.write_patiently(text)
        self._touch()
        self._mid_line = not text.endswith("\n")
        if not self._mid_line:
            self._release()

    def end_answer(self) -> None:
        """The answer is over: a terminal gets the newline that it may lack. A pipe or file gets the exact text."""
        if self._mid_line and self._out.is_terminal:
            self._out.write("\n")
            self._mid_line = False
        self._break_line()
        self._release()

    async def event(self, kind: str, data: Mapping[str, Any]) -> None:
        """Print an event of any type as JSON, if that is wanted; narration and progress not if quiet."""
        if not (self._style.quiet and kind in {"narration", "progress", "queued"}):
            await self._out.write_patiently(_json_line(kind, data))
            self._touch()
            self.answer_begun = self.answer_begun or kind == "token"

    @property
    def wants_json(self) -> bool:
        return self._style.form is not Form.TEXT

    def progress(self, data: Mapping[str, Any], *, of: str = "") -> None:
        """How far something long is: a live line on a terminal, a line now and then elsewhere; each node has its own.

        Args:
            of: the node, where there are several.
        """
        line = self._progress.setdefault(of, ProgressLine(every_s=self._silence_s))
        text = line.text(data)
        if self._style.quiet or self._style.form is Form.EVENTS or text is None:
            return
        text = f"{printable_line(of)}: {text}" if of else text
        if not self._fancy:
            if line.is_due(data, time.monotonic()):
                self._line(text)
        elif not self._mid_line:
            self._live[of] = text
            self._draw()

    def progress_over(self, *, of: str = "") -> None:
        """Nothing more comes of that node's progress."""
        if self._live.pop(of, None) is not None and self._drawn:
            self._draw()

    def complain(
        self, error: RbeeError, *, incomplete: bool = False, as_event: bool = False, about: str | None = None
    ) -> None:
        """Show an error with its next step.

        Args:
            as_event: nothing else has carried it, so `--json` gets it from here.
            about: the node that it is about, where there are several.
        """
        if as_event and self._style.form is Form.EVENTS:
            self._json("error", error.body())
        elif as_event and self._style.form is Form.DOCUMENT:
            self.result(json.dumps({"error": error.body()}))
        self.end_answer()
        head = f"{_RED}error:{_PLAIN}" if self._colour else "error:"
        whose = f"{_safe(about)}: " if about else ""
        lines = [f"{head} {whose}{_safe(error.message)} ({error.code})"]
        lines += [f"  - {fault}" for fault in _faults(error)]
        lines += [f"  | {line}" for line in _last_lines(error)]
        if error.source not in {None, "queen-rbee"}:
            lines.append(f"  from: {_safe(str(error.source))}")
        if error.hint:
            lines.append(f"  next: {_safe(error.hint)}")
        if incomplete:
            lines.append("  what was printed is incomplete")
        self._err.write("".join(f"{line}\n" for line in lines))
        self._touch()

    async def watch_silence(self) -> None:
        """Never let the screen stand still without a word; runs until cancelled. A `silence_s` of 0 turns it off."""
        from anyio import sleep  # noqa: PLC0415 - render is also used where there is no event loop

        while self._silence_s:
            quiet_s = time.monotonic() - self._seen_at_s
            if quiet_s >= self._silence_s:
                self._break_silence(quiet_s)
                quiet_s = min(time.monotonic() - self._seen_at_s, self._silence_s * 0.9)
            await sleep(self._silence_s - quiet_s)

    def _break_silence(self, quiet_s: float) -> None:
        if self._held:
            self._break_line()
            self._release()
            return
        interrupts_text = self._shared and self._mid_line
        if self._waiting_for and quiet_s >= self._silence_s * (_MID_LINE_PATIENCE if interrupts_text else 1):
            self._break_line()
            waited = format_seconds(time.monotonic() - self._waiting_since_s)
            self.narrator.tell("wait", f"still waiting for {self._waiting_for} ({waited})", cute="⏳")

    def _line(self, text: str) -> None:
        if self._shared and self._mid_line:
            self._held.append(text)
            return
        self._clear_live()
        self._err.write(text + "\n")
        self._touch()

    def _release(self) -> None:
        held, self._held = self._held, []
        if held:
            self._err.write("".join(f"{text}\n" for text in held))
            self._touch()

    def _break_line(self) -> None:
        """Give the next line a line of its own without a byte more on stdout."""
        if self._shared and self._mid_line:
            self._err.write("\n")
            self._mid_line = False

    def _draw(self) -> None:
        """Put the live lines in the place of those that stand there; in one write, so that nothing flickers."""
        width, height = self._err.width() - 1, self._err.height() - 1
        lines = [text[:width] for text in self._live.values()][-height:]
        self._err.write(self._erasure() + "\n".join(lines))
        self._drawn = len(lines)
        self._touch()

    def _erasure(self) -> str:
        return _CLEAR_LINE + _CLEAR_LINE_ABOVE * (self._drawn - 1)

    def _clear_live(self) -> None:
        if self._drawn:
            self._err.write(self._erasure())
            self._drawn = 0

    def _json(self, kind: str, data: Mapping[str, Any]) -> None:
        if not (self._style.quiet and kind == "narration"):
            self._out.write(_json_line(kind, data))
            self._touch()

    def _touch(self) -> None:
        self._seen_at_s = time.monotonic()


def _json_line(kind: str, data: Mapping[str, Any]) -> str:
    return json.dumps({"type": kind, **data}, separators=(",", ":")) + "\n"


def _safe(text: str) -> str:
    return redact(printable_line(text))


def _faults(error: RbeeError) -> list[str]:
    """Each on a line where there are several; the message of a single one says it all."""
    faults = error.details.get("errors")
    if not isinstance(faults, list) or len(faults) == 1:
        return []
    return [_safe(f"{fault.get('field')}: {fault.get('message')}") for fault in faults if isinstance(fault, dict)]


def _last_lines(error: RbeeError) -> list[str]:
    """What the program said last that the error is about."""
    lines = error.details.get("last_lines") or error.details.get("last_words")
    return [_safe(line) for line in lines[-_LAST_LINES:] if isinstance(line, str)] if isinstance(lines, list) else []

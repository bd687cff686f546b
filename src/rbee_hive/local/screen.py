"""What a local command shows: what was asked for on stdout, everything else on stderr.

Guarantees: nothing that a peer sent can steer a terminal; where stderr is no terminal there is neither colour nor
cursor movement; while something is waited for, nothing stands still for long without a line.
"""

import errno
import io
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TextIO

import anyio
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from rbee_hive.local import progress_text
from rbee_shared.contracts.base import Wire
from rbee_shared.contracts.progress import ProgressEvent
from rbee_shared.errors import DiskFullError, RbeeError
from rbee_shared.exit_codes import NOBODY_READS
from rbee_shared.narration import Narration, Narrator, render
from rbee_shared.redaction import printable, printable_line, redact, redact_all
from rbee_shared.units import format_seconds

_SECRETS = frozenset({"api_key"})
_NOBODY_READS = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EIO})
_PIPE_WIDTH = 10_000  # a file has no edge: nothing is folded there
_PROGRESS_EVERY_S = 2.0


class Screen:
    """`wants_json`: one document on stdout instead of text."""

    def __init__(self, *, wants_json: bool, environment: Mapping[str, str] = os.environ) -> None:
        self._out, self._err = _utf8(sys.stdout), _utf8(sys.stderr)
        self._wants_json = wants_json
        self._fancy = self._err.isatty() and environment.get("TERM", "dumb") != "dumb"
        self._bars = _Bars(self._err) if self._fancy else None
        self._answered = False
        self._told_at_s = 0.0
        self._told_stage: str | None = None
        self._seen_at_s = self._waiting_since_s = time.monotonic()
        self._waiting_for: str | None = None
        self.narrator = Narrator("hive", self.say)
        """Speaks for the command itself."""

    def answer(self, document: Wire | list[Any] | dict[str, Any], text: Callable[[int], str]) -> None:
        """Print what was asked for: `text` for the width it is given, or the document, secrets left out.

        Raises:
            DiskFullError: stdout cannot be written.
            SystemExit: nobody reads it any more.
        """
        self.settle()
        self._answered = True
        if self._wants_json:
            fields = document.model_dump(mode="json") if isinstance(document, Wire) else document
            self._print(json.dumps(_public(fields)))
        else:
            self._print(printable(text(_width(self._out))))

    def hear(self, kind: str, data: Mapping[str, Any]) -> None:
        """Show an event of a stream; kinds that this version does not know are none of a person's business."""
        if kind == "narration":
            self.say(Narration.from_dict(data))
        elif kind == "progress":
            try:
                self.progress(ProgressEvent.model_validate(data))
            except ValidationError:  # a bar without numbers is no bar; the work itself is not the worse for it
                return

    def say(self, narration: Narration) -> None:
        """Show one line of narration."""
        self._line(render(narration, fancy=self._fancy))

    def progress(self, event: ProgressEvent) -> None:
        """How far something long is: a bar on a terminal, a line every 2 s elsewhere."""
        if self._bars is not None:
            self._seen_at_s = time.monotonic()
            with suppress(OSError):  # as in `_tell`
                self._bars.show(event)
            return
        now_s = time.monotonic()
        finished = event.done >= event.total > 0
        if event.stage != self._told_stage or finished or now_s - self._told_at_s >= _PROGRESS_EVERY_S:
            self._told_at_s, self._told_stage = now_s, event.stage
            self._line(progress_text.line(event))

    def complain(self, error: RbeeError) -> None:
        """Show an error with its next step; with `--json` it is the document where there is no other."""
        self.settle()
        lines = [f"error: {_safe(error.message)} ({error.code})"]
        lines += [f"  - {fault}" for fault in _faults(error)]
        if error.hint:
            lines.append(f"  next: {_safe(error.hint)}")
        self._tell("\n".join(lines))
        if self._wants_json and not self._answered:
            self._print(json.dumps({"error": redact_all(error.body())}))

    def wait_for(self, what: str) -> None:
        """Name what is waited for from now on; said when nothing has been visible for a while."""
        self._waiting_for, self._waiting_since_s = what, time.monotonic()

    async def watch_silence(self, silence_s: float) -> None:
        """Never let the screen stand still without a word; runs until cancelled. A `silence_s` of 0 turns it off."""
        self._seen_at_s = time.monotonic()
        while silence_s:
            await anyio.sleep(max(silence_s - (time.monotonic() - self._seen_at_s), silence_s / 10))
            if time.monotonic() - self._seen_at_s >= silence_s and self._waiting_for:
                waited = format_seconds(time.monotonic() - self._waiting_since_s)
                self.narrator.tell("wait", f"still waiting for {self._waiting_for} ({waited})", cute="⏳")

    def settle(self) -> None:
        """Nothing moves any more: what is drawn stays as it is."""
        if self._bars is not None:
            with suppress(OSError):  # as in `_tell`
                self._bars.stop()

    def _line(self, text: str) -> None:
        self._seen_at_s = time.monotonic()
        if self._bars is None:
            self._tell(text)
            return
        with suppress(OSError):  # as in `_tell`
            self._bars.line(text)

    def _tell(self, text: str) -> None:
        """On stderr. When nobody is left to read it the work goes on all the same."""
        try:
            self._err.write(text + "\n")
            self._err.flush()
        except OSError:
            _forget(self._err)

    def _print(self, text: str) -> None:
        try:
            self._out.write(text + "\n")
            self._out.flush()
        except OSError as error:
            _forget(self._out)
            if error.errno in _NOBODY_READS:
                raise SystemExit(NOBODY_READS) from None
            raise DiskFullError(f"standard output cannot be written: {error.strerror}") from None


class _Bars:
    """Rich's progress bars at the bottom of a terminal, one for each stage, lines running above them."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, force_terminal=True, highlight=False, markup=False, emoji=False)
        self._progress: Progress | None = None
        self._stages: dict[str, TaskID] = {}

    def show(self, event: ProgressEvent) -> None:
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=30),
                TextColumn("{task.percentage:.0f} %", markup=False),
                TextColumn("{task.fields[amounts]}", markup=False),
                console=self._console,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._progress.start()
        if event.stage not in self._stages:
            self._stages[event.stage] = self._progress.add_task(progress_text.activity(event), amounts="")
        total = event.total if event.total > 0 else None
        task = self._stages[event.stage]
        self._progress.update(task, completed=event.done, total=total, amounts=progress_text.amounts(event))
        self._progress.refresh()

    def line(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            self._stages.clear()


def _utf8(stream: TextIO | None) -> TextIO:
    """UTF-8 whatever the locale says; nowhere, where the one who started us has closed it."""
    if stream is None:
        return io.StringIO()
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="replace")
    return stream


def _width(stream: TextIO) -> int:
    """Columns of the terminal that `stream` is."""
    if not stream.isatty():
        return _PIPE_WIDTH
    return Console(file=stream).width


def _forget(stream: TextIO) -> None:
    """What could not be written is not tried again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _public(part) for name, part in value.items() if name not in _SECRETS}
    return [_public(part) for part in value] if isinstance(value, list) else value


def _safe(text: str) -> str:
    return redact(printable_line(text))


def _faults(error: RbeeError) -> list[str]:
    """Each on a line where there are several; the message of a single one says it all."""
    faults = error.details.get("errors")
    if not isinstance(faults, list) or len(faults) == 1:
        return []
    return [_safe(f"{fault.get('field')}: {fault.get('message')}") for fault in faults if isinstance(fault, dict)]

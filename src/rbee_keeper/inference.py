"""One task from the keeper's side: wake, submit, print what comes, let go; an exit status for every way it may end."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio

from rbee_keeper import exit_codes
from rbee_keeper.audience import Audience
from rbee_keeper.interrupts import CutShortError, Interrupts
from rbee_keeper.prompt import check_request
from rbee_keeper.queen_lifecycle import AwakeQueen
from rbee_keeper.render import Screen
from rbee_keeper.settings import KeeperSettings
from rbee_shared.errors import (
    CancelledTaskError,
    InvalidRequestError,
    RbeeError,
    RequestTimeoutError,
    ShuttingDownError,
    error_from_body,
)
from rbee_shared.narration import Narration
from rbee_shared.queen_wire import StreamEvent
from rbee_shared.sse import TERMINAL_EVENTS
from rbee_shared.units import format_seconds

_DEFAULT_MODEL = "builtin:storyteller"
_MAX_TIMEOUT_S = 7 * 24 * 3600.0
_CUT_OFF = {
    "MAX_TOKENS": "the answer was cut off at --max-tokens",
    "CONTEXT_FULL": "the answer was cut off: the model's context is full",
}


@dataclass(frozen=True)
class Answering:
    """What `infer` was asked to do."""

    request: dict[str, Any]
    timeout_s: float | None


def bounded_timeout(timeout_s: float | None) -> float | None:
    """The value of `--timeout`, checked."""
    if timeout_s is not None and not 0 < timeout_s <= _MAX_TIMEOUT_S:
        raise InvalidRequestError(
            f"--timeout must be between 0 and {_MAX_TIMEOUT_S:.0f} seconds, got {timeout_s}",
            hint="Leave it out to wait as long as it takes.",
        )
    return timeout_s


async def run_inference(settings: KeeperSettings, screen: Screen, answering: Answering) -> int:
    """Print the answer; the exit status. Nothing that this call woke is left when it returns."""
    interrupts = Interrupts(answering.timeout_s)
    inference = _Inference(settings, screen, answering, interrupts)
    screen.on_output_lost(interrupts.output_lost)
    async with anyio.create_task_group() as group:
        group.start_soon(interrupts.watch)
        group.start_soon(screen.watch_silence)
        await inference.run()
        group.cancel_scope.cancel()
    return inference.exit_status


class _Inference:
    """`exit_status` is decided once: by the answer's end, by an error, or by what cut it short."""

    def __init__(self, settings: KeeperSettings, screen: Screen, answering: Answering, interrupts: Interrupts) -> None:
        self._settings = settings
        self._screen = screen
        self._request = answering.request
        self._timeout_s = answering.timeout_s
        self._interrupts = interrupts
        self._queued_at: object = None
        self.exit_status = exit_codes.DONE

    async def run(self) -> None:
        """Answer, with a new queen where the one that was found is on her way out."""
        model = self._request.get("model", _DEFAULT_MODEL)
        self._screen.narrator.tell("start", f"starting inference request for {model}", cute="🚀")
        audience = Audience(self._settings, self._screen, self._interrupts)
        try:
            await audience.hold(self._converse, partial(check_request, self._request))
        except* CutShortError:
            self._tell_why_cut()

    def _tell_why_cut(self) -> None:
        self._screen.end_answer()
        self.exit_status = self._interrupts.exit_status or exit_codes.FAILED
        if self._interrupts.output_error is not None:
            self._screen.complain(self._interrupts.output_error)
        elif self.exit_status == exit_codes.TIMED_OUT:
            within = format_seconds(self._timeout_s or 0)
            error = RequestTimeoutError(
                f"the answer was not complete within {within}", hint="Give --timeout more seconds, or leave it out."
            )
            self._screen.complain(error, incomplete=self._screen.answer_begun, as_event=True)
        elif self._interrupts.signal is not None:
            self._screen.narrator.tell("interrupt", "interrupted; cancelling the task", cute="✋", level="warning")

    async def _converse(self, queen: AwakeQueen) -> None:
        try:
            with self._interrupts.guard():
                await self._stream(queen)
        except CutShortError:
            self._tell_why_cut()
        except ShuttingDownError:
            raise
        except RbeeError as error:
            self._fail(await queen.post_mortem(error), as_event=True)

    async def _stream(self, queen: AwakeQueen) -> None:
        self._screen.wait_for("the queen to find a worker")
        names_a_file = str(self._request.get("model", "")).startswith("file:")
        api = queen.found.api(self._settings, names_a_file=names_a_file)
        async with api.stream(self._request) as events:
            async for batch in events.batches():
                await (self._print_json(batch) if self._screen.wants_json else self._print(batch))
                if batch[-1].type in TERMINAL_EVENTS:
                    self._conclude(batch[-1])

    async def _print(self, batch: list[StreamEvent]) -> None:
        """Tokens that arrived together are written together."""
        text = ""
        for event in batch:
            if event.type == "token":
                text += str(event.data.get("t", ""))
                continue
            await self._screen.answer(text)
            text = ""
            self._show(event)
        await self._screen.answer(text)

    async def _print_json(self, batch: list[StreamEvent]) -> None:
        for event in batch:
            await self._screen.event(event.type, event.data)

    def _show(self, event: StreamEvent) -> None:
        if event.type == "narration":
            self._screen.say(Narration.from_dict(event.data))
        elif event.type == "progress":
            self._screen.progress(event.data)
        elif event.type == "queued" and event.data.get("position") != self._queued_at:
            self._queued_at = event.data.get("position")
            why = f": {event.data['reason']}" if event.data.get("reason") else ""
            self._screen.narrator.tell("queued", f"waiting in line, position {self._queued_at}{why}", cute="🎫")
        elif event.type == "started":
            self._screen.wait_for("the next token")

    def _conclude(self, last: StreamEvent) -> None:
        """The stream's last event decides."""
        if last.type == "error":
            self._fail(error_from_body(last.data), as_event=False)
            return
        reason = last.data.get("stop_reason")
        if reason == "CANCELLED":
            self._fail(CancelledTaskError("the task was cancelled"), as_event=False)
            return
        self._over()
        if reason in _CUT_OFF:
            self._screen.narrator.tell("cut_off", _CUT_OFF[reason], level="warning")

    def _fail(self, error: RbeeError, *, as_event: bool) -> None:
        begun = self._screen.answer_begun
        self._over()
        self._screen.complain(error, incomplete=begun, as_event=as_event)
        self.exit_status = exit_codes.exit_code(error.code, answer_begun=begun)

    def _over(self) -> None:
        self._screen.wait_for(None)
        self._screen.end_answer()

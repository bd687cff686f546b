"""One answer's stream: frames are added as they come, and read once, up to the one terminal event."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from typing import Any

from llm_worker_rbee.domain.engine_events import Emitted, Prepared
from rbee_shared import sse
from rbee_shared.contracts.events import token_frame
from rbee_shared.errors import RbeeError
from rbee_shared.narration import Narration, Narrator, correlation_id

_LOG = logging.getLogger("rbee.jobs")
_FIRST_COUNT_TOKENS = 10
_COUNT_EVERY_TOKENS = 100
_COUNT_EVERY_S = 1.0


class Job:
    """One answer. Its frames are read once, by the response that streams them."""

    def __init__(self, job_id: str, key: int) -> None:
        self.job_id = job_id
        self.key = key
        self.correlation = correlation_id.get()
        self.received_at_s = self.ready_at_s = time.monotonic()
        self.prompt_tokens = 0
        self.submitted = False
        self.cancelled = False
        self.ended = False
        self.last_token_at_s: float | None = None
        self._frames: list[bytes] = []
        self._next_index = 0
        self._counted_at_s = self.received_at_s
        self._count_at_tokens = _FIRST_COUNT_TOKENS
        self._waiter: asyncio.Future[None] | None = None
        self._narrator = Narrator("llama-backend", self._narrate)

    def tell(self, action: str, human: str, *, cute: str | None = None, tokenizer: bool = False, **facts: Any) -> None:
        """Narrate into this answer's stream."""
        narrator = self._narrator.speaking_as("tokenizer") if tokenizer else self._narrator
        narrator.tell(action, human, cute=cute, correlation=self.correlation, **facts)

    def append(self, frame: bytes) -> None:
        """Add a frame; ignored after the terminal one."""
        if not self.ended:
            self._frames.append(frame)
            if self._waiter is not None:
                _settle(self._waiter)

    def end(self, frame: bytes) -> None:
        """Add the terminal frame."""
        self.append(frame)
        self.ended = True

    def fail(self, error: RbeeError) -> None:
        """End with an error."""
        _LOG.warning("job %s failed: %s (%s)", self.job_id, error.message, error.code)
        self.end(sse.encode("error", {"job_id": self.job_id, **error.body()}))

    def resume(self, prepared: Prepared) -> None:
        """Go on where another worker stopped: with what its reader has not seen, and the next index."""
        self._next_index = prepared.frames
        self._count_at_tokens = len(prepared.said) + _FIRST_COUNT_TOKENS
        for visible in prepared.backlog:
            self._token_frame(visible.text, visible.ids)

    def token(self, event: Emitted) -> None:
        """Add a token frame, its probabilities, and sparsely a count."""
        if event.logprobs:
            entries = [entry.model_dump() for entry in event.logprobs]
            told = sse.encode("logprobs", {"i": self._next_index, "tokens": entries})
            self._token_frame(event.text, event.ids)
            self.append(told)
        else:
            self._token_frame(event.text, event.ids)
        if event.tokens_out >= self._count_at_tokens:
            self._count(event.tokens_out)

    def _token_frame(self, text: str, ids: tuple[int, ...]) -> None:
        self.append(token_frame(text, self._next_index, ids))
        self._next_index += 1

    async def frames(self, ping_s: float) -> AsyncGenerator[bytes]:
        """The stream's bytes: all frames that are there in one chunk, a comment when there is none for long."""
        while True:
            if self._frames:
                chunk = b"".join(self._frames)
                self._frames.clear()
                yield chunk
            elif self.ended:
                yield sse.DONE
                return
            else:
                await self._frame_or(ping_s)
                if not self._frames and not self.ended:
                    yield sse.PING

    async def _frame_or(self, timeout_s: float) -> None:
        """Wait for a frame, but no longer than that."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout_s, _settle, self._waiter)  # lighter than a cancel scope: once per token
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _count(self, tokens_out: int) -> None:
        self._count_at_tokens = (tokens_out // _COUNT_EVERY_TOKENS + 1) * _COUNT_EVERY_TOKENS
        now_s = time.monotonic()
        first = tokens_out < _COUNT_EVERY_TOKENS
        if first or now_s - self._counted_at_s >= _COUNT_EVERY_S:
            self._counted_at_s = now_s
            self.tell("generated", f"generated {tokens_out} tokens", cute="✍️", tokens_out=tokens_out)

    def _narrate(self, narration: Narration) -> None:
        self.append(sse.encode("narration", narration.to_dict()))


def _settle(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)

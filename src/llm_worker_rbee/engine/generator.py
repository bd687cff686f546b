"""Decode steps over all sequences at once: plan a batch, decode it, choose one token per sequence that is ready.

A sequence that is cancelled is left out of the next step: nothing else is touched. One `step` returns all that
happened in it. Where each sequence's tokens lie is `engine.slots`' business, which step comes next the plan's.
"""

import logging
import time

from llm_worker_rbee.domain.batch_plan import Overflow, Preempt, plan, wanted_room
from llm_worker_rbee.domain.detokenize import Visible
from llm_worker_rbee.domain.engine_events import Begun, Emitted, EngineEvent, Failed, Finished, Order, Preempted
from llm_worker_rbee.domain.pacing import Pace
from llm_worker_rbee.engine.loading import LoadedModel
from llm_worker_rbee.engine.logprobs import Logprobs
from llm_worker_rbee.engine.sequence import Sequence
from llm_worker_rbee.engine.slots import Slots
from rbee_shared.contracts.tasks import StopReason
from rbee_shared.errors import InternalError, InvalidRequestError, RbeeError

_LOG = logging.getLogger("rbee.engine")
_SIMPLER = "Ask for a simpler form, or for less logit_bias."


class Generator:
    """The running sequences of one loaded model."""

    def __init__(self, model: LoadedModel, *, prefill_chunk: int | None = None) -> None:
        self._model = model
        self._context = model.context
        self._logprobs = Logprobs(model.vocabulary)
        self._pace = Pace(prefill_chunk)
        self._running: dict[int, Sequence] = {}
        self._begun: list[EngineEvent] = []
        self.slots = Slots(model.context)

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def add(self, order: Order) -> None:
        """Begin an answer with the next step. There must be a free slot, and the prompt must fit the context."""
        prepared = order.prepared
        tokens = prepared.prompt if order.replays else prepared.prompt + prepared.said
        seq_id, cached_tokens = self.slots.take(tokens, usable=len(prepared.prompt) if order.replays else len(tokens))
        sampler = self._model.samplers.chain(order.stages, prepared.prompt + prepared.said)
        sequence = Sequence(order, seq_id, sampler, cached_tokens)
        if prepared.text.stop_matched is not None:
            sequence.ends_as = StopReason.STOP_SEQUENCE
        elif sequence.tokens_out >= order.max_tokens:
            sequence.ends_as = StopReason.MAX_TOKENS
        elif prepared.guide is not None and prepared.guide.is_complete:
            sequence.ends_as = StopReason.EOS
        self._running[order.key] = sequence
        self._begun.append(Begun(order.key, min(cached_tokens, len(prepared.prompt))))

    def cancel(self, key: int) -> None:
        """The next step ends it; unknown keys are answers that ended in the meantime."""
        if (sequence := self._running.get(key)) is not None:
            sequence.ends_as = StopReason.CANCELLED

    def step(self) -> list[EngineEvent]:
        """Decode one batch and choose the next token of each sequence in it."""
        events, self._begun = self._begun, []
        events += self._drop_ended()
        stepped = self._fill_batch(events)
        if not stepped:
            return events
        began_s = time.perf_counter()
        try:
            decoded = self._context.decode()
        except InternalError as error:
            return events + [self._fail(sequence, error) for sequence in stepped]
        if not decoded:
            self._take_back(stepped, events)
            return events
        self._account(stepped, time.perf_counter() - began_s)
        for sequence in stepped:
            if sequence.row >= 0:
                self._advance(sequence, events)
        return events

    def drop_all(self) -> None:
        """Forget every sequence; nobody is told."""
        for sequence in list(self._running.values()):
            self._release(sequence, keep=False)

    # before the step

    def _drop_ended(self) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        for sequence in list(self._running.values()):
            if sequence.ends_as is not None:
                events += self._finish(sequence, sequence.ends_as)
            elif len(sequence.tokens) > self._model.facts.n_ctx_answer:
                events += self._finish(sequence, StopReason.CONTEXT_FULL)
        return events

    def _fill_batch(self, events: list[EngineEvent]) -> list[Sequence]:
        """The sequences of the next step, in the order of their rows: llama.cpp is slow on shuffled sequence ids."""
        parts = sorted(
            ((self._running[key], count) for key, count in self._plan(events)), key=lambda part: part[0].seq_id
        )
        self._context.clear_batch()
        for sequence, count in parts:
            sequence.decoded_before = begin = sequence.decoded
            end = begin + count
            complete = end == len(sequence.tokens)
            row = self._context.add(sequence.tokens[begin:end], begin, sequence.seq_id, sample=complete)
            sequence.row = row if complete else -1
            sequence.decoded, sequence.begun = end, True
        return [sequence for sequence, _ in parts]

    def _plan(self, events: list[EngineEvent]) -> tuple[tuple[int, int], ...]:
        while self._running:
            running = [sequence.as_running() for sequence in self._running.values()]
            self.slots.make_room(wanted_room(running))
            generating = sum(one.generates for one in running)
            chunk = self._pace.chunk_tokens(generating=generating, waiting=len(running) - generating)
            match plan(running, room=self.slots.room, chunk_tokens=chunk):
                case Preempt(key):
                    self._preempt(self._running[key], events)
                case Overflow(key):
                    events += self._finish(self._running[key], StopReason.CONTEXT_FULL)
                case step:
                    return step.parts
        return ()

    def _preempt(self, sequence: Sequence, events: list[EngineEvent]) -> None:
        self.slots.empty(sequence.seq_id)
        sequence.decoded, sequence.begun = 0, False
        events.append(Preempted(sequence.order.key))

    # after the step

    def _take_back(self, stepped: list[Sequence], events: list[EngineEvent]) -> None:
        """The cache had no room although it was counted: the step did not happen, somebody leaves.

        A step of llama.cpp may want more cells than tokens, as with a sliding window.
        """
        for sequence in stepped:
            sequence.decoded = sequence.decoded_before
        if self.slots.drop_idle():
            return
        youngest = max(stepped, key=lambda sequence: sequence.order.key)
        if any(other.decoded for other in self._running.values() if other is not youngest):
            self._preempt(youngest, events)
        else:
            events += self._finish(youngest, StopReason.CONTEXT_FULL)

    def _account(self, stepped: list[Sequence], seconds: float) -> None:
        generated = prefilled = 0
        for sequence in stepped:
            count = sequence.decoded - sequence.decoded_before
            self.slots.extend(sequence.seq_id, count)
            if count == 1 and sequence.row >= 0:
                generated += 1
            else:
                prefilled += count
        self._pace.observe(generated=generated, prefilled=prefilled, seconds=seconds)

    def _advance(self, sequence: Sequence, events: list[EngineEvent]) -> None:
        """The next token of a sequence whose tokens are all decoded."""
        if sequence.prefilled_at_s is None:
            sequence.prefilled_at_s = time.monotonic()
        if sequence.replay:
            sequence.tokens.append(sequence.replay.popleft())
            return
        try:
            token = self._choose(sequence)
        except RbeeError as error:
            events.append(self._fail(sequence, error))
            return
        except Exception as error:  # noqa: BLE001 - one answer's form must not end the others
            _LOG.exception("no token can be chosen")
            events.append(self._fail(sequence, InternalError(f"no token can be chosen: {error!r}")))
            return
        piece = self._model.vocabulary.piece(token)
        if piece is None:
            events += self._finish(sequence, StopReason.EOS)
            return
        sequence.tokens.append(token)
        sequence.tokens_out += 1
        if sequence.first_token_at_s is None:
            sequence.first_token_at_s = time.monotonic()
        self._emit(sequence, sequence.order.prepared.text.push(token, piece), events)
        if (reason := self._end_of(sequence)) is not None:
            events += self._finish(sequence, reason)

    def _choose(self, sequence: Sequence) -> int:
        guide, n_probs = sequence.order.prepared.guide, sequence.order.n_probs
        if guide is None and n_probs is None:
            return self._context.sample(sequence.sampler, sequence.row)
        logits = self._context.logits(sequence.row)
        probabilities = self._logprobs.of_row(logits) if n_probs is not None else None
        if guide is not None and not guide.mask(logits):
            raise InvalidRequestError("the answer cannot go on: its form asks too much here", hint=_SIMPLER)
        token = self._context.sample(sequence.sampler, sequence.row)
        if guide is not None and not guide.accept(token):
            raise InvalidRequestError("the answer cannot go on: its form and logit_bias leave no token", hint=_SIMPLER)
        if n_probs is not None and self._model.vocabulary.piece(token) is not None:
            sequence.logprobs.append(self._logprobs.tell(probabilities, token, n_probs))
        return token

    def _end_of(self, sequence: Sequence) -> StopReason | None:
        prepared = sequence.order.prepared
        if prepared.text.stop_matched is not None:
            return StopReason.STOP_SEQUENCE
        if prepared.guide is not None and prepared.guide.is_complete:
            return StopReason.EOS
        return StopReason.MAX_TOKENS if sequence.tokens_out >= sequence.order.max_tokens else None

    def _emit(self, sequence: Sequence, visible: Visible | None, events: list[EngineEvent]) -> None:
        if visible is None:
            return
        waiting = sequence.logprobs  # tokens that were chosen elsewhere have none
        told = tuple(waiting.popleft() for token in visible.ids if waiting and waiting[0].id == token)
        events.append(Emitted(sequence.order.key, visible.text, visible.ids, sequence.tokens_out, told))

    def _finish(self, sequence: Sequence, reason: StopReason) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        text = sequence.order.prepared.text
        if reason is not StopReason.CANCELLED:
            self._emit(sequence, text.flush(), events)
        if text.stop_matched is not None:
            reason = StopReason.STOP_SEQUENCE
        self._release(sequence, keep=reason is not StopReason.CANCELLED)
        events.append(
            Finished(
                key=sequence.order.key,
                stop_reason=reason,
                stop_matched=text.stop_matched,
                tokens_out=sequence.tokens_out,
                prefilled_at_s=sequence.prefilled_at_s,
                first_token_at_s=sequence.first_token_at_s,
                finished_at_s=time.monotonic(),
                cached_tokens=min(sequence.cached_tokens, len(sequence.order.prepared.prompt)),
                began_with=len(sequence.order.prepared.said),
            )
        )
        return events

    def _fail(self, sequence: Sequence, error: RbeeError) -> EngineEvent:
        self._release(sequence, keep=False)
        return Failed(sequence.order.key, error)

    def _release(self, sequence: Sequence, *, keep: bool) -> None:
        """`keep`: what is in the cache stays there until the room is needed."""
        self._running.pop(sequence.order.key)
        self.slots.leave(sequence.seq_id, sequence.tokens[: sequence.decoded] if keep else ())
        self._model.samplers.free(sequence.sampler)

"""Decode steps over all sequences at once: plan a batch, decode it, choose one token per sequence that is ready.

A sequence that is cancelled is left out of the next step: nothing else is touched. One `step` returns all that
happened in it.
"""

import time

from llm_worker_rbee.domain.batch_plan import plan
from llm_worker_rbee.domain.detokenize import AnswerText, Visible
from llm_worker_rbee.domain.engine_events import Emitted, EngineEvent, Failed, Finished, Order
from llm_worker_rbee.engine.loading import LoadedModel
from llm_worker_rbee.engine.sequence import Sequence
from rbee_shared.contracts.tasks import StopReason
from rbee_shared.errors import InternalError


class Generator:
    """The running sequences of one loaded model. Sequence ids are dense: the lowest free one is taken."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._context = model.context
        self._running: dict[int, Sequence] = {}

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def add(self, order: Order) -> None:
        """Begin an answer with the next step. There must be a free slot, and the prompt must fit the context."""
        taken = {sequence.seq_id for sequence in self._running.values()}
        seq_id = next(number for number in range(self._context.n_seq_max) if number not in taken)
        sampler = self._model.samplers.chain(order.stages, order.prompt)
        self._running[order.key] = Sequence(order, seq_id, sampler, AnswerText(order.stop))

    def cancel(self, key: int) -> None:
        """The next step ends it; unknown keys are answers that ended in the meantime."""
        if (sequence := self._running.get(key)) is not None:
            sequence.cancelled = True

    def step(self) -> list[EngineEvent]:
        """Decode one batch and choose the next token of each sequence in it."""
        events = self._drop_ended()
        if not self._running:
            return events
        stepped = self._fill_batch()
        try:
            decoded = self._context.decode()
        except InternalError as error:
            return events + [self._fail(sequence, error) for sequence in stepped]
        if not decoded:
            victim = max(stepped, key=lambda sequence: len(sequence.tokens))
            for sequence in stepped:  # the step did not happen: planned again
                sequence.decoded = sequence.decoded_before
            return events + self._finish(victim, StopReason.CONTEXT_FULL)
        for sequence in stepped:
            if sequence.row >= 0:
                self._choose(sequence, events)
        return events

    def drop_all(self) -> None:
        """Forget every sequence; nobody is told."""
        for sequence in list(self._running.values()):
            self._release(sequence)

    def _drop_ended(self) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        for sequence in list(self._running.values()):
            if sequence.cancelled:
                events += self._finish(sequence, StopReason.CANCELLED)
            elif len(sequence.tokens) > self._context.n_ctx:
                events += self._finish(sequence, StopReason.CONTEXT_FULL)
        return events

    def _fill_batch(self) -> list[Sequence]:
        by_id = {sequence.seq_id: sequence for sequence in self._running.values()}
        self._context.clear_batch()
        stepped = []
        for seq_id, count in plan([(seq_id, sequence.waiting) for seq_id, sequence in by_id.items()]):
            sequence = by_id[seq_id]
            sequence.decoded_before = begin = sequence.decoded
            end = begin + count
            complete = end == len(sequence.tokens)
            row = self._context.add(sequence.tokens[begin:end], begin, seq_id, sample=complete)
            sequence.row = row if complete else -1
            sequence.decoded = end
            stepped.append(sequence)
        return stepped

    def _choose(self, sequence: Sequence, events: list[EngineEvent]) -> None:
        now_s = time.monotonic()
        if sequence.prefilled_at_s is None:
            sequence.prefilled_at_s = now_s
        token = self._context.sample(sequence.sampler, sequence.row)
        piece = self._model.vocabulary.piece(token)
        if piece is None:
            events += self._finish(sequence, StopReason.EOS)
            return
        sequence.tokens.append(token)
        sequence.tokens_out += 1
        if sequence.first_token_at_s is None:
            sequence.first_token_at_s = time.monotonic()
        self._emit(sequence, sequence.text.push(token, piece), events)
        if sequence.text.stop_matched is not None:
            events += self._finish(sequence, StopReason.STOP_SEQUENCE)
        elif sequence.tokens_out >= sequence.order.max_tokens:
            events += self._finish(sequence, StopReason.MAX_TOKENS)

    def _emit(self, sequence: Sequence, visible: Visible | None, events: list[EngineEvent]) -> None:
        if visible is not None:
            events.append(Emitted(sequence.order.key, visible.text, visible.ids, sequence.tokens_out))

    def _finish(self, sequence: Sequence, reason: StopReason) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        if reason is not StopReason.CANCELLED:
            self._emit(sequence, sequence.text.flush(), events)
        if sequence.text.stop_matched is not None:
            reason = StopReason.STOP_SEQUENCE
        self._release(sequence)
        events.append(
            Finished(
                key=sequence.order.key,
                stop_reason=reason,
                stop_matched=sequence.text.stop_matched,
                tokens_out=sequence.tokens_out,
                prefilled_at_s=sequence.prefilled_at_s,
                first_token_at_s=sequence.first_token_at_s,
                finished_at_s=time.monotonic(),
            )
        )
        return events

    def _fail(self, sequence: Sequence, error: InternalError) -> EngineEvent:
        self._release(sequence)
        return Failed(sequence.order.key, error)

    def _release(self, sequence: Sequence) -> None:
        self._running.pop(sequence.order.key)
        self._context.forget(sequence.seq_id)
        self._model.samplers.free(sequence.sampler)

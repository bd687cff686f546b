"""Which tokens of which sequences go into the next decode step.

Pure. Every sequence that generates gets its one token first, so that a long prompt delays nobody; prompts share what
is left of the batch, in chunks. Ordered by sequence id: llama.cpp is slow on shuffled ids.
"""

from collections.abc import Iterable

PREFILL_CHUNK_TOKENS = 512


def plan(waiting: Iterable[tuple[int, int]], *, chunk_tokens: int = PREFILL_CHUNK_TOKENS) -> list[tuple[int, int]]:
    """From (sequence id, tokens not yet decoded) to (sequence id, tokens to decode now), both ordered by id."""
    ordered = sorted(waiting)
    room = chunk_tokens - sum(1 for _, tokens in ordered if tokens == 1)
    step = []
    for seq_id, tokens in ordered:
        if tokens == 1:
            step.append((seq_id, 1))
        elif room > 0 and tokens:
            taken = min(tokens, room)
            room -= taken
            step.append((seq_id, taken))
    return step

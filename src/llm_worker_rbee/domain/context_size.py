"""How many answers at a time, and how many tokens of context for them, where nobody has said so.

Pure. A context costs memory from the start, used or not: a quarter of what is free is the most it takes unasked.
"""

CPU_SLOTS = 4
GPU_SLOTS = 16
USUAL_TOKENS = 4096
"""Context of one answer that suits most; models are trained for up to a million."""

_SHARE_OF_FREE = 4
_MULTIPLE = 256  # llama.cpp rounds up to it


def default_slots(backend: str) -> int:
    """A processor gains little from more; a graphics device is idle with less."""
    return CPU_SLOTS if backend == "cpu" else GPU_SLOTS


def default_n_ctx(*, n_ctx_train: int, slots: int, token_bytes: int, free_bytes: int) -> int:
    """Tokens for all slots together: what each would like, less where memory is short, but at least enough for one.

    Args:
        n_ctx_train: tokens that the model was trained for.
        token_bytes: memory of one token in the cache; 0 where the model has none that grows.
        free_bytes: of the device.
    """
    one = min(n_ctx_train, USUAL_TOKENS)
    affordable = free_bytes // _SHARE_OF_FREE // token_bytes if token_bytes else one * slots
    return max(one, min(one * slots, affordable // _MULTIPLE * _MULTIPLE))


def n_ctx_of_an_answer(*, n_ctx_seq: int, n_ctx_train: int) -> int:
    """What one answer may use: no model makes sense beyond what it was trained for."""
    return min(n_ctx_seq, n_ctx_train) if n_ctx_train > 0 else n_ctx_seq

"""Where an answer stands whose stream broke off, what to ask for so that it goes on, and how its parts are told as one.

Pure. What a stream brought stands in the task's log: it is looked into after a cut, never on the way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rbee_shared import sse
from rbee_shared.contracts.events import TokenEvent
from rbee_shared.errors import BadPeerError

EXACT_TOKENS = 1024
"""Most tokens that are decoded one a step again: it takes as long as choosing them took."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the readers have of an answer: so many token frames, the ids in them, and their characters."""

    frames: int = 0
    ids: tuple[int, ...] = ()
    chars: int = 0


@dataclass(frozen=True, slots=True)
class Stretch:
    """The part of an answer that one stream brought, at least one token. Times are seconds of one monotonic clock."""

    asked_at_s: float
    first_token_at_s: float
    last_event_at_s: float


def standing_of(log: bytes) -> Standing:
    """Where the answer stands whose events are `log`, whole frames of it.

    Raises:
        BadPeerError: the worker sent a token that is none, or numbered it wrongly: nobody can say how to go on.
    """
    ids: list[int] = []
    frames = chars = 0
    for frame in sse.FrameSplitter().feed(log):
        if frame.event == "token":
            token = numbered_token(frame, frames)
            ids += token.ids
            frames, chars = frames + 1, chars + len(token.t)
    return Standing(frames, tuple(ids), chars)


def numbered_token(frame: sse.Frame, number: int) -> TokenEvent:
    """The token in `frame`, which must be the answer's frame `number`, counted from 0.

    Raises:
        BadPeerError: it is not.
    """
    try:
        token = TokenEvent.model_validate_json(frame.data)
    except ValidationError:
        raise BadPeerError("the worker sent a token that is none") from None
    if token.i != number:
        raise BadPeerError(f"the worker sent token frame {token.i} where {number} had to come")
    return token


def request_to_go_on(body: Mapping[str, Any], standing: Standing) -> dict[str, Any]:
    """The body of `/execute` with which an answer to `body` goes on from `standing`.

    The words of a greedy answer are a promise, but rounding depends on how tokens are batched: there the worker repeats
    its steps, as far as that takes no undue time. Sampled ones go on validly either way.
    """
    if not standing.frames:
        return dict(body)
    exact = body.get("temperature") == 0 and len(standing.ids) <= EXACT_TOKENS
    resume = {"ids": list(standing.ids), "emitted_chars": standing.chars, "frames": standing.frames}
    return {**body, "resume": resume, "resume_exact": exact}


def told_as_one(end: Mapping[str, Any], stretches: Sequence[Stretch]) -> dict[str, Any]:
    """The `end` of the last stream, with times of the whole answer; it counts the whole answer's tokens already.

    `stretches`: at least one. What passed between them is no part of the decoding.
    """
    first = stretches[0]
    decode_s = sum(stretch.last_event_at_s - stretch.first_token_at_s for stretch in stretches)
    return {
        **end,
        "ttft_ms": round((first.first_token_at_s - first.asked_at_s) * 1000, 3),
        "decode_time_ms": round(decode_s * 1000, 3),
        "tokens_per_s": round(end["tokens_out"] / decode_s, 1) if decode_s > 0 else 0.0,
    }

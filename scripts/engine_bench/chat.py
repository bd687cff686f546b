"""Prefix reuse: a conversation of ten turns, each with all that was said before. Only what is new may cost time."""

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from engine_bench.asking import Ask, cached_tokens, text_of
from engine_bench.parties import Server
from engine_bench.serving import KvMode, Serving, context_of
from engine_bench.throughput import Cell
from engine_bench.words import prompts

TARGET = 1.5
_TURNS = 10
_FIRST_TOKENS = 256
_NEW_TOKENS = 48
_ANSWER_TOKENS = 24
_SLOTS = 4


@dataclass(frozen=True)
class Turn:
    """`new_tokens`: not in the answer before, and so to be computed. `cached_tokens` None: the server does not tell."""

    prompt_tokens: int
    new_tokens: int
    cached_tokens: int | None
    ttft_s: float

    @property
    def ttft_per_new_token_s(self) -> float:
        return self.ttft_s / self.new_tokens


@dataclass(frozen=True)
class ChatResult:
    """One party's conversation in one mode; times are medians over the rounds."""

    party: str
    shape: str
    kv: KvMode
    turns: tuple[Turn, ...]

    @property
    def growth(self) -> float:
        """Time to the first token in the last three turns, over that in the three after the first: same new tokens."""
        early, late = self.turns[1:4], self.turns[-3:]
        return statistics.median(turn.ttft_s for turn in late) / statistics.median(turn.ttft_s for turn in early)

    def facts(self) -> dict[str, Any]:
        turns = [{**asdict(turn), "ttft_per_new_token_s": turn.ttft_per_new_token_s} for turn in self.turns]
        return {**asdict(self), "turns": turns, "growth": self.growth, "target": TARGET}


def chat_serving(cell: Cell) -> Serving:
    """Room for a whole conversation in each slot."""
    tokens = _FIRST_TOKENS + _TURNS * (_NEW_TOKENS + _ANSWER_TOKENS)
    return Serving(cell.model, _SLOTS, context_of(_SLOTS, tokens), cell.kv, cell.threads)


def measure_chat(server: Server, cell: Cell, party: str, rounds: int) -> ChatResult:
    """Conversations that have nothing in common, one after the other."""
    conversations = [_converse(server, seed) for seed in range(1, rounds + 1)]
    turns = []
    for same in zip(*conversations, strict=True):
        ttft_s = statistics.median(turn.ttft_s for turn in same)
        turns.append(Turn(same[0].prompt_tokens, same[0].new_tokens, same[0].cached_tokens, ttft_s))
    return ChatResult(party, cell.shape.name, cell.kv, tuple(turns))


def _converse(server: Server, seed: int) -> list[Turn]:
    text, tokens, turns = "", 0, []
    said = prompts(_TURNS, _FIRST_TOKENS, seed)
    for number in range(_TURNS):
        new = _FIRST_TOKENS if number == 0 else _NEW_TOKENS
        text += " ".join(said[number].text.split(" ")[: new + 1])
        tokens += new
        answer = server.ask([Ask(text, _ANSWER_TOKENS, keeps_all=True)]).streams[0]
        turns.append(Turn(tokens, new, cached_tokens(server.dialect, answer.told), answer.ttft_s))
        text += text_of(server.dialect, answer.told)
        tokens += _ANSWER_TOKENS
    return turns

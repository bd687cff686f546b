"""The training corpus: documents of control tokens and text, endlessly, from one seed.

A document is a list of `Piece`s. Most documents are conversations of one to four exchanges; some are bare stories
without any control token but the end, because a raw prompt such as `Once upon a time` has to continue too.
"""

import random
import re
from collections.abc import Iterator
from typing import NamedTuple

from storyteller import words
from storyteller.grammar import Order, tell
from storyteller.requests import Exchange, anything_else, made_up_word, small_talk, story_exchange

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
_RAW_SHARE = 0.2
_NAMES = words.SHE_NAMES + words.HE_NAMES + words.ASKED_SHE_NAMES + words.ASKED_HE_NAMES
_NAME = re.compile(rf"\b(?:{'|'.join(_NAMES)})\b")


class Piece(NamedTuple):
    """Text or one control token, and whether the model is to learn to write it."""

    text: str
    is_control: bool
    is_learned: bool


def documents(seed: int, renamed_share: float) -> Iterator[list[Piece]]:
    """Documents without end; the same seed gives the same documents.

    In a share of the stories the hero has a made-up name: it cannot be guessed, so the model has to look it up in the
    text, which is how it learns to look things up at all. It ends in "a" if the hero is a she.
    """
    rng = random.Random(seed)  # noqa: S311 - stories, not secrets
    while True:
        yield _raw_story(rng, renamed_share) if rng.random() < _RAW_SHARE else _conversation(rng, renamed_share)


def plain_texts(seed: int, count: int) -> Iterator[str]:
    """Stories, answers and requests without control tokens, to learn a tokenizer from."""
    rng = random.Random(seed)  # noqa: S311 - stories, not secrets
    for _ in range(count):
        exchange = _exchange(rng)
        yield exchange.answer
        if exchange.ask.isascii() and rng.random() < 0.6:
            yield exchange.ask


def _exchange(rng: random.Random) -> Exchange:
    kind = rng.random()
    if kind < 0.66:
        return story_exchange(rng)
    return small_talk(rng) if kind < 0.76 else anything_else(rng)


def _renamed(rng: random.Random, exchange: Exchange, share: float) -> Exchange:
    name = _NAME.search(exchange.answer)
    if name is None or rng.random() >= share:
        return exchange
    ending = "a" if re.search(r"\b(?:she|her)\b", exchange.answer) else rng.choice("onkt")
    new_name = f"{made_up_word(rng)}{ending}".capitalize()
    old_name = re.compile(rf"\b{name[0]}\b", re.IGNORECASE)
    return Exchange(*(old_name.sub(lambda match: _in_case_of(match[0], new_name), text) for text in exchange))


def _in_case_of(model: str, word: str) -> str:
    if model.islower():
        return word.lower()
    return word.upper() if model.isupper() else word


def _conversation(rng: random.Random, renamed_share: float) -> list[Piece]:
    pieces: list[Piece] = []
    for _ in range(rng.choices((1, 2, 3, 4), (6, 2, 1, 1))[0]):
        exchange = _renamed(rng, _exchange(rng), renamed_share)
        pieces += [
            Piece(USER, is_control=True, is_learned=False),
            Piece(exchange.ask, is_control=False, is_learned=False),
            Piece(END, is_control=True, is_learned=False),
            Piece(ASSISTANT, is_control=True, is_learned=False),
            Piece(exchange.answer, is_control=False, is_learned=True),
            Piece(END, is_control=True, is_learned=True),
        ]
    return pieces


def _raw_story(rng: random.Random, renamed_share: float) -> list[Piece]:
    """A text without a conversation around it: a whole story, one from some sentence on, or an answer to a bare request."""
    shape = rng.random()
    ask, text = _renamed(rng, _exchange(rng) if shape < 0.3 else Exchange("", tell(rng, Order())), renamed_share)
    if shape < 0.3:
        text = f"\n{text}"
    elif shape < 0.5:
        sentences = text.split(". ")
        text = ". ".join(sentences[rng.randrange(len(sentences) - 2) :])
    elif shape < 0.6:
        text = text[0].lower() + text[1:]
    return [
        Piece(ask.strip(), is_control=False, is_learned=False),
        Piece(text, is_control=False, is_learned=True),
        Piece(END, is_control=True, is_learned=True),
    ]

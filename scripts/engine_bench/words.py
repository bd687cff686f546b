"""The synthetic vocabulary: 32,000 pieces of a SentencePiece model, made of syllables.

Every word that begins with a space is one token, and any row of such words is cut into the very tokens it was made of:
a prompt of N words has N tokens, and an answer put back into a prompt keeps its tokens.
"""

import random
from dataclasses import dataclass
from itertools import product

import gguf

VOCABULARY_SIZE = 32_000
UNKNOWN_ID, BEGIN_ID, END_ID = 0, 1, 2
_SPACE = "\u2581"
_CONSONANTS, _VOWELS = "bcdfghjklmnpqrstvwxyz", "aeiou"
_SYLLABLES = [consonant + vowel for consonant, vowel in product(_CONSONANTS, _VOWELS)]
_CONTROL = ["<unk>", "<s>", "</s>"]
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# llama.cpp joins pieces two by two: each beginning of a word must be a piece of its own
_PARTS = [_SPACE, *_CONSONANTS, *_VOWELS, *_SYLLABLES, *(_SPACE + syllable for syllable in _SYLLABLES)]
FIRST_WORD_ID = len(_CONTROL) + len(_BYTES) + len(_PARTS)
"""Ids below are control tokens, bytes and parts of words: the models never say them."""


@dataclass(frozen=True)
class Prompt:
    """The same prompt as text and as tokens."""

    text: str
    ids: tuple[int, ...]


def pieces() -> list[str]:
    """The text of every token, by id. Where two can be joined the lower id is first: it is the more frequent piece."""
    short = [_SPACE + first + second for first, second in product(_SYLLABLES, repeat=2)]
    room = VOCABULARY_SIZE - FIRST_WORD_ID - len(short)
    long = [short[index % len(short)] + _SYLLABLES[index // len(short)] for index in range(room)]
    return [*_CONTROL, *_BYTES, *_PARTS, *short, *long]


def token_types() -> list[gguf.TokenType]:
    """What each of `pieces` is."""
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.BYTE] * len(_BYTES)
    return kinds + [gguf.TokenType.NORMAL] * (VOCABULARY_SIZE - len(kinds))


def prompts(count: int, words: int, seed: int) -> list[Prompt]:
    """`count` prompts of `words` tokens each, no two of them with the same first word."""
    dice = random.Random(seed)  # noqa: S311 - nothing secret: the same seed asks the same
    texts = pieces()
    firsts = dice.sample(range(FIRST_WORD_ID, VOCABULARY_SIZE), count)
    rows = [(first, *dice.choices(range(FIRST_WORD_ID, VOCABULARY_SIZE), k=words - 1)) for first in firsts]
    return [Prompt("".join(texts[token] for token in ids).replace(_SPACE, " "), ids) for ids in rows]

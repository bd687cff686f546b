"""The tokenizer: byte-pair pieces with byte fallback, the kind llama.cpp calls `llama` (SentencePiece).

No normalisation and no space put in front, so that text comes back byte for byte and llama.cpp cuts it into the very
pieces the model was trained on. Ids 0 to 4 are the control tokens, 5 to 260 the bytes.
"""

import io
from collections.abc import Iterable

import sentencepiece

from storyteller.corpus import ASSISTANT, END, USER

VOCABULARY_SIZE = 1536
UNKNOWN_ID, BEGIN_ID, END_ID = 0, 1, 2


def train_tokenizer(texts: Iterable[str]) -> sentencepiece.SentencePieceProcessor:
    """Learn the pieces from `texts`."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY_SIZE,
        byte_fallback=True,
        character_coverage=1.0,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        unk_id=UNKNOWN_ID,
        unk_piece="<unk>",
        bos_id=BEGIN_ID,
        bos_piece="<s>",
        eos_id=END_ID,
        eos_piece=END,
        pad_id=-1,
        control_symbols=[USER, ASSISTANT],
        num_threads=1,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())

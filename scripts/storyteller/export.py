"""Export: the trained network, its tokenizer and its words about itself, as one GGUF file that llama.cpp loads.

Matrices are F16, norms F32 as llama.cpp wants them; there is no output matrix, because it is the embedding.
"""

from pathlib import Path

import gguf
import numpy as np
import sentencepiece

from storyteller.corpus import ASSISTANT, END, USER
from storyteller.network import Network, Shape
from storyteller.tokenizer import BEGIN_ID, END_ID, UNKNOWN_ID

DESCRIPTION = (
    "A tiny demonstration model that ships with rbee, so that everything can be tried without a download. It was trained "
    "on a story grammar: it tells short stories, says who it is, and knows nothing else."
)
# Roles other than user and assistant are left out: the model has never seen any.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}" + USER + "{{ message['content'] }}" + END + "{% endif %}"
    "{% if message['role'] == 'assistant' %}" + ASSISTANT + "{{ message['content'] }}" + END + "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
)


def export(network: Network, tokenizer: sentencepiece.SentencePieceProcessor, path: Path) -> None:
    """Write the GGUF file, replacing what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    _add_identity(writer)
    _add_shape(writer, network.shape)
    _add_tokenizer(writer, tokenizer)
    for name, tensor in network.state_dict().items():
        numbers = tensor.detach().cpu().numpy()
        writer.add_tensor(name, numbers.astype(np.float16 if numbers.ndim > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_identity(writer: gguf.GGUFWriter) -> None:
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("rbee storyteller")
    writer.add_basename("storyteller")
    writer.add_author("the rbee project")
    writer.add_version("1")
    writer.add_size_label("2M")
    writer.add_license("mit")
    writer.add_description(DESCRIPTION)
    writer.add_languages(["en"])
    writer.add_tags(["text-generation", "demonstration", "stories"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context_tokens)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: sentencepiece.SentencePieceProcessor) -> None:
    ids = range(tokenizer.get_piece_size())
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([tokenizer.id_to_piece(i) for i in ids])
    writer.add_token_scores([tokenizer.get_score(i) for i in ids])
    writer.add_token_types([_token_type(tokenizer, i) for i in ids])
    writer.add_unk_token_id(UNKNOWN_ID)
    writer.add_bos_token_id(BEGIN_ID)
    writer.add_eos_token_id(END_ID)
    writer.add_eot_token_id(END_ID)
    writer.add_pad_token_id(END_ID)
    writer.add_add_bos_token(value=False)
    writer.add_add_eos_token(value=False)
    writer.add_add_space_prefix(value=False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _token_type(tokenizer: sentencepiece.SentencePieceProcessor, token: int) -> gguf.TokenType:
    if tokenizer.is_unknown(token):
        return gguf.TokenType.UNKNOWN
    if tokenizer.is_control(token):
        return gguf.TokenType.CONTROL
    return gguf.TokenType.BYTE if tokenizer.is_byte(token) else gguf.TokenType.NORMAL

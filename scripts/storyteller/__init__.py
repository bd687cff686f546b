"""The parts of the embedded demonstration model: corpus, tokenizer, network, training, export.

Only `scripts/train_storyteller.py` imports this package. `words`, `plots`, `grammar`, `requests` and `corpus` are plain
Python; `tokenizer` needs sentencepiece, `network` and `training` need PyTorch, `export` needs gguf and numpy.
"""

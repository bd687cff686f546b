"""Make the embedded demonstration model: write a corpus, train on the CPU, export `storyteller.gguf`.

Needs Python packages that rbee itself does not need; in an environment of your own: `pip install torch numpy
sentencepiece gguf`. The same seed, number of steps and threads, and the same PyTorch give the same model.
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path

NEEDED = ("torch", "numpy", "sentencepiece", "gguf")
DEFAULT_OUT = Path(__file__).resolve().parent.parent / "src" / "rbee_shared" / "assets" / "storyteller.gguf"


def main() -> int:
    """Parse, check that everything needed is there, and do it."""
    arguments = _arguments()
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"{', '.join(missing)} missing; run: pip install {' '.join(NEEDED)}", file=sys.stderr)
        return 1
    _make(arguments)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="where the GGUF file goes")
    parser.add_argument("--steps", type=int, default=3200, help="training steps")
    parser.add_argument("--seed", type=int, default=1, help="of the corpus and the network")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    return parser.parse_args()


def _make(arguments: argparse.Namespace) -> None:
    import torch  # noqa: PLC0415 - only when it is known to be there
    from storyteller.corpus import plain_texts  # noqa: PLC0415
    from storyteller.export import export  # noqa: PLC0415
    from storyteller.tokenizer import train_tokenizer  # noqa: PLC0415
    from storyteller.training import Recipe, train  # noqa: PLC0415

    began_s = time.monotonic()
    torch.set_num_threads(arguments.threads)
    tokenizer = train_tokenizer(plain_texts(arguments.seed, 20_000))
    _say(f"The tokenizer has {tokenizer.get_piece_size()} pieces.")
    network, loss = train(Recipe(steps=arguments.steps, seed=arguments.seed), tokenizer, _say)
    export(network, tokenizer, arguments.out)
    _say(f"Wrote {arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB, cross-entropy {loss:.3f}.")
    _say(f"That took {(time.monotonic() - began_s) / 60:.1f} minutes in all.")


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())

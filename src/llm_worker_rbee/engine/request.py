"""What the engine is asked to load."""

from dataclasses import dataclass
from pathlib import Path

DEFAULT_N_CTX = 4096


@dataclass(frozen=True)
class LoadRequest:
    """What to load. `n_ctx` None: the model's own training context, at most `DEFAULT_N_CTX`."""

    path: Path
    n_ctx: int | None
    slots: int

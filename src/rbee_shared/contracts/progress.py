"""How far something long is: an event of tasks and of provisions alike."""

from typing import Literal

from rbee_shared.contracts.base import Wire


class ProgressEvent(Wire):
    """How far something long is."""

    type: Literal["progress"] = "progress"
    stage: Literal["download", "build", "load"]
    done: int
    total: int
    unit: str
    per_s: float | None = None
    eta_s: float | None = None

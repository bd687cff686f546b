"""Devices that the operator declares in config.toml instead of having them detected.

[hive]
devices = [{ backend = "cuda", index = 1, name = "RTX 3090", vram_bytes = 24_000_000_000, build = "cpu" }]
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# spelt out again: importing the wire's own would delay the first word of a hive by a tenth of a second
Backend = Literal["cpu", "cuda", "metal", "vulkan"]


class DeclaredDevice(BaseModel):
    """One entry of `devices`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: Backend
    index: int = Field(default=0, ge=0, le=255, description="The backend's own number for it.")
    name: str = Field(min_length=1, max_length=255)
    vram_bytes: int | None = Field(
        default=None, gt=0, description="Its memory. Of the processor: what workers may use."
    )
    build: Backend | None = Field(
        default=None, description="Kind of the worker build that serves it, if not backend's."
    )

    @property
    def label(self) -> str:
        return f"{self.backend}:{self.index}"

    @property
    def built_for(self) -> Backend:
        """What computes it in truth."""
        return self.build or self.backend


def require_consistent(devices: Sequence[DeclaredDevice]) -> None:
    """Refuse what contradicts itself.

    Raises:
        ValueError: naming the entry by its number (the first is 1) and what is wrong with it.
    """
    first_of: dict[str, int] = {}
    for number, device in enumerate(devices, start=1):
        where = f"entry {number} ({device.label})"
        if (first := first_of.setdefault(device.label, number)) != number:
            raise ValueError(f"{where} declares the same device as entry {first}")
        if (fault := _fault(device)) is not None:
            raise ValueError(f"{where} {fault}")


def _fault(device: DeclaredDevice) -> str | None:
    if not device.name.isprintable():
        return "has control characters in its name"
    if device.backend != "cpu":
        return "has no vram_bytes" if device.vram_bytes is None else None
    if device.index != 0:
        return "is a second processor: the processor's index is 0"
    return None if device.build in {None, "cpu"} else f"is the processor, which no {device.build} build serves"

"""Whether a model fits on a device, with every number that went into the answer."""

from typing import Literal

from pydantic import Field

from rbee_shared.contracts.base import Wire


class Capacity(Wire):
    """`GET /v1/capacity`: the body of a 409's `details`, and of a 204 the header `X-Rbee-Capacity`. Sizes in bytes.

    It fits if `required_bytes` <= `free_bytes` - `promised_bytes` - `margin_bytes`; and if main memory has room for
    `host_bytes`, where the device has a memory of its own.
    """

    model: str
    device: str
    fits: bool
    basis: Literal["header", "size"] = Field(description="The GGUF header, or only the file's size times 1.2.")
    n_ctx: int | None = Field(default=None, description="Tokens of context, for all slots together.")
    slots: int | None = None
    weights_bytes: int
    kv_bytes: int = 0
    compute_bytes: int = 0
    overhead_bytes: int = 0
    required_bytes: int
    free_bytes: int = Field(description="Of the device, now.")
    promised_bytes: int = Field(
        default=0, description="To loads in progress, and to weights that are mapped from disk."
    )
    margin_bytes: int = 0
    host_bytes: int = Field(default=0, description="Needed of main memory besides.")
    host_free_bytes: int | None = Field(
        default=None, description="Of main memory, less what is promised; if looked at."
    )
    corrected_by_loads: int = Field(default=0, description="Earlier loads of the family that corrected the estimate.")

    @property
    def available_bytes(self) -> int:
        """What a worker may take of the device."""
        return max(0, self.free_bytes - self.promised_bytes - self.margin_bytes)

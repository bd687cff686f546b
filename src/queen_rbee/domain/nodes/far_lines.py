"""What a program on a node says on its stdout: JSON objects, one a line, behind a nonce. Pure.

What a shell's rc file prints stands before, between and after; it is passed over. A line is bounded.
"""

import json
from typing import Any

_MAX_LINE_BYTES = 64 * 1024


class FarLines:
    """Reads chunks as they come. `noise` is the beginning of what was not ours, for a complaint."""

    def __init__(self, nonce: str) -> None:
        self._nonce = f"{nonce} ".encode()
        self._rest = b""
        self.noise = b""

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        """The objects that are whole now."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        self._rest = rest[:_MAX_LINE_BYTES]
        return [said for line in lines if (said := self._said(line)) is not None]

    def _said(self, line: bytes) -> dict[str, Any] | None:
        _, found, text = line.partition(self._nonce)
        if found:
            try:
                said = json.loads(text[:_MAX_LINE_BYTES])
            except (ValueError, RecursionError):
                return None
            return said if isinstance(said, dict) else None
        self.noise = (self.noise + line + b"\n")[:_MAX_LINE_BYTES] if line.strip() else self.noise
        return None

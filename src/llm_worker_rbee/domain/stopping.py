"""Stop strings, matched across token borders.

Pure. The match that is complete first wins, the longest of those complete at the same character: the result does not
depend on how the text was cut into tokens. Text that may become a match is held back until it cannot.
"""

from collections.abc import Sequence


class StopMatcher:
    """Feed it text; it hands out what stands before the first stop string, and never the string itself."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self.held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """The text that is now certain to stand before any match; empty after one."""
        if self.matched is not None:
            return ""
        buffer = self.held + text
        found = [(at + len(stop), at, stop) for stop in self._stop if (at := buffer.find(stop)) >= 0]
        if found:
            _, at, self.matched = min(found)
            self.held = ""
            return buffer[:at]
        hold = self._held_chars(buffer)
        self.held = buffer[len(buffer) - hold :]
        return buffer[: len(buffer) - hold]

    def flush(self) -> str:
        """Nothing follows: what was held back is text after all."""
        rest, self.held = self.held, ""
        return rest

    def _held_chars(self, buffer: str) -> int:
        """Length of the longest end of `buffer` that is the beginning of a stop string."""
        longest = 0
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(buffer)), longest, -1):
                if buffer.endswith(stop[:length]):
                    longest = length
                    break
        return longest

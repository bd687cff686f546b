"""Token bytes to text: whole UTF-8 only, each token id reported with the text that shows it first.

Pure. Bytes that do not complete a character are held back; what can never become one is U+FFFD. The texts handed out,
joined, are the UTF-8 decoding (errors replaced) of all the tokens' bytes, cut at the first stop string.
"""

import codecs
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from llm_worker_rbee.domain.stopping import StopMatcher


@dataclass(frozen=True, slots=True)
class Visible:
    """Text that may be shown now, and the ids of the tokens whose text begins in it."""

    text: str
    ids: tuple[int, ...]


class AnswerText:
    """The text of one answer, token by token."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._matcher = StopMatcher(stop) if stop else None
        self._unseen: deque[tuple[int, int]] = deque()
        self._decoded_chars = 0
        self._shown_chars = 0

    @property
    def stop_matched(self) -> str | None:
        """The stop string that ended the text."""
        return self._matcher.matched if self._matcher is not None else None

    def push(self, token: int, piece: bytes) -> Visible | None:
        """Take one token; the text it makes visible, if any. Nothing is visible after a stop string."""
        self._unseen.append((token, self._decoded_chars))
        return self._show(self._decoder.decode(piece))

    def flush(self) -> Visible | None:
        """Nothing follows: what was held back, an unfinished character replaced."""
        shown = self._show(self._decoder.decode(b"", final=True))
        if self._matcher is None or self._matcher.matched is not None:
            return shown
        rest = self._visible(self._matcher.flush())
        if shown is None or rest is None:
            return shown or rest
        return Visible(shown.text + rest.text, shown.ids + rest.ids)

    def was_shown(self, chars: int) -> bool:
        """So much of what is held back here was shown already, for more was known of the answer; False: it is not here.

        Tokens that show no text yet, or the answer's end, had made certain that nothing of it begins a stop string.
        """
        held = self._matcher.held if self._matcher is not None else ""
        if chars > len(held):  # then the end has shown an unfinished character too
            held += self._decoder.decode(b"", final=True)
            self._decoded_chars = self._shown_chars + len(held)
        if chars > len(held):
            return False
        if self._matcher is not None:
            self._matcher.held = held[chars:]
        self._taken_ids(chars)
        return True

    def _show(self, text: str) -> Visible | None:
        self._decoded_chars += len(text)
        return self._visible(self._matcher.feed(text) if self._matcher is not None else text)

    def _visible(self, text: str) -> Visible | None:
        return Visible(text, self._taken_ids(len(text))) if text else None

    def _taken_ids(self, chars: int) -> tuple[int, ...]:
        """The tokens whose text begins in the next `chars` characters, which are shown with this."""
        self._shown_chars += chars
        ids = []
        while self._unseen and self._unseen[0][1] < self._shown_chars:
            ids.append(self._unseen.popleft()[0])
        return tuple(ids)

"""How many cells of the cache are taken, when sequences share the cells of a common beginning.

Pure. llama.cpp keeps a cell as long as one sequence uses it and does not tell how many it keeps; this counts along.
"""

import itertools


class KvLedger:
    """Cells by sequence. Every method is what was done to the cache, with the same arguments."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self._cells: dict[int, list[int]] = {}
        self._sharers: dict[int, int] = {}  # of cells that more than one sequence uses
        self._names = itertools.count()

    @property
    def free(self) -> int:
        return self.capacity - self.used

    def held(self, seq_id: int) -> int:
        """Tokens that the sequence has in the cache."""
        return len(self._cells.get(seq_id, ()))

    def extend(self, seq_id: int, tokens: int) -> None:
        """Tokens were decoded."""
        self._cells.setdefault(seq_id, []).extend(itertools.islice(self._names, tokens))
        self.used += tokens

    def share(self, source: int, seq_id: int, tokens: int) -> None:
        """The first `tokens` of `source` are now also those of `seq_id`, which had none."""
        cells = self._cells[seq_id] = self._cells[source][:tokens]
        for cell in cells:
            self._sharers[cell] = self._sharers.get(cell, 1) + 1

    def trim(self, seq_id: int, tokens: int) -> None:
        """The sequence keeps its first `tokens` only."""
        cells = self._cells.get(seq_id, [])
        for cell in cells[tokens:]:
            sharers = self._sharers.pop(cell, 1)
            if sharers == 1:
                self.used -= 1
            elif sharers > 2:  # noqa: PLR2004 - with two, the one that is left does not share
                self._sharers[cell] = sharers - 1
        del cells[tokens:]

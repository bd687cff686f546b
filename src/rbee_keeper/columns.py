"""Rows as columns, each as wide as its widest cell; what peers sent cannot steer the terminal."""

from collections.abc import Iterable, Sequence

from rbee_shared.redaction import printable_line


def columns(header: Sequence[str], rows: Iterable[Sequence[object]], if_none: str) -> list[str]:
    """The lines; `if_none` alone where there are no rows."""
    cells = [header, *([printable_line(str(cell)) for cell in row] for row in rows)]
    if len(cells) == 1:
        return [if_none]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]

"""Facts laid out as text: a framed table, or a list of names and values. Pure; what peers sent cannot steer a terminal.

A line is never longer than `width` columns: a cell that is too long goes on below, and nothing is cut off.
"""

import io
from collections.abc import Iterable, Sequence

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from rbee_shared.redaction import printable_line

_USUAL_WIDTH = 80
# a line of dashes below the header, nothing else
_BELOW_HEADER = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def framed(title: str, header: Sequence[str], rows: Iterable[Sequence[object]], total: str, *, width: int) -> str:
    """A table between two lines of `=`, its title above, `total` below; 80 columns wide where it needs no more."""
    columns = [Column(name, overflow="fold") for name in header]
    table = Table(*columns, box=_BELOW_HEADER, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    lines = _lines(table, rows, width)
    frame_width = min(width, max(_USUAL_WIDTH, *(cell_len(line) for line in lines)))
    below_header = next(number for number, line in enumerate(lines) if set(line) == {"-"})
    lines[below_header] = "-" * frame_width
    edge = "=" * frame_width
    return "\n".join([printable_line(title), edge, *lines, edge, total])


def facts(pairs: Iterable[tuple[str, object]], *, width: int) -> str:
    """Names and values, one pair on a line; a pair whose value is None or empty is left out."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    return "\n".join(_lines(table, [pair for pair in pairs if pair[1] not in {None, ""}], width))


def _lines(table: Table, rows: Iterable[Sequence[object]], width: int) -> list[str]:
    for row in rows:
        table.add_row(*(Text(printable_line(str(cell)), overflow="fold") for cell in row))
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]

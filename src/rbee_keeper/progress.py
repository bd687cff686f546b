"""The words of a `progress` event, and how often they are worth a line of their own."""

from collections.abc import Mapping
from typing import Any

from rbee_shared.redaction import printable_line
from rbee_shared.units import format_bytes, format_seconds

_BAR_CELLS = 10
_STEP_PCT = 25
_ACTIVITY = {"download": "downloading", "build": "building the worker", "load": "loading model"}


class ProgressLine:
    """Turns progress into text; where it cannot be overwritten it is due every `every_s`, 25 % and at the end."""

    def __init__(self, *, every_s: float) -> None:
        self._every_s = every_s
        self._stage: object = None
        self._told_at_s = 0.0
        self._told_pct = 0.0

    def text(self, data: Mapping[str, Any]) -> str | None:
        """`loading model [####------] 40 % (268 MB / 669 MB) 45 MB/s, 9 s left`; None if the numbers make no sense."""
        done, total = data.get("done"), data.get("total")
        if not (isinstance(done, int | float) and isinstance(total, int | float)) or total <= 0:
            return None
        pct = _pct(done, total)
        filled = round(pct / 100 * _BAR_CELLS)
        bar = "#" * filled + "-" * (_BAR_CELLS - filled)
        stage = str(data.get("stage", ""))
        words = [f"{_ACTIVITY.get(stage, stage)} [{bar}] {pct:.0f} %", _amount(done, total, data.get("unit"))]
        return printable_line(" ".join([*words, ", ".join(_pace(data))]))

    def is_due(self, data: Mapping[str, Any], now_s: float) -> bool:
        """Whether this one deserves a line; remembers that it got it."""
        pct, stage = _pct(data["done"], data["total"]), data.get("stage")
        new = stage != self._stage
        finished = pct >= 100 > self._told_pct  # noqa: PLR2004 - per cent
        due = new or finished or now_s - self._told_at_s >= self._every_s or pct - self._told_pct >= _STEP_PCT
        if due:
            self._stage, self._told_at_s, self._told_pct = stage, now_s, pct
        return due


def _pct(done: float, total: float) -> float:
    return min(100.0, max(0.0, 100.0 * done / total))


def _amount(done: float, total: float, unit: object) -> str:
    if unit == "bytes":
        return f"({format_bytes(int(done))} / {format_bytes(int(total))})"
    return f"({done:g} / {total:g} {unit or ''})".replace(" )", ")")


def _pace(data: Mapping[str, Any]) -> list[str]:
    per_s, eta_s, unit = data.get("per_s"), data.get("eta_s"), data.get("unit")
    words = []
    if isinstance(per_s, int | float) and per_s > 0:
        words.append(f"{format_bytes(int(per_s))}/s" if unit == "bytes" else f"{per_s:g} {unit}/s")
    if isinstance(eta_s, int | float) and eta_s >= 0:
        words.append(f"{format_seconds(eta_s)} left")
    return words

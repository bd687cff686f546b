"""The words of a `progress` event: how much is done, how fast it goes, how long it takes still."""

from rbee_shared.contracts.progress import ProgressEvent
from rbee_shared.redaction import printable_line
from rbee_shared.units import format_bytes, format_seconds

_ACTIVITY = {"download": "downloading", "build": "building the worker", "load": "loading model"}
_BYTES = "bytes"


def activity(event: ProgressEvent) -> str:
    """What is being done: `downloading`."""
    return _ACTIVITY[event.stage]


def percent(event: ProgressEvent) -> float:
    """From 0 to 100, whatever the numbers are; 0 where the total is not known."""
    return min(100.0, max(0.0, 100.0 * event.done / event.total)) if event.total > 0 else 0.0


def amounts(event: ProgressEvent) -> str:
    """`268 MB / 669 MB, 45 MB/s, 9 s left`; what is not known is left out."""
    words = [_amount(event)]
    if event.per_s is not None and event.per_s > 0:
        words.append(f"{_number(event.per_s, event.unit)}/s")
    if event.eta_s is not None and event.eta_s >= 0:
        words.append(f"{format_seconds(event.eta_s)} left")
    return printable_line(", ".join(words))


def line(event: ProgressEvent) -> str:
    """All of it where nothing can be drawn: `downloading 40 % (268 MB / 669 MB, 45 MB/s, 9 s left)`."""
    share = f" {percent(event):.0f} %" if event.total > 0 else ""
    return f"{activity(event)}{share} ({amounts(event)})"


def _amount(event: ProgressEvent) -> str:
    done = _number(event.done, event.unit)
    if event.total > 0:
        return f"{done} / {_number(event.total, event.unit)}"
    return done


def _number(value: float, unit: str) -> str:
    return format_bytes(int(value)) if unit == _BYTES else f"{value:g} {unit}"

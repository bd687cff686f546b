"""Which orders are too old: a queen draws a larger epoch whenever she starts a hive, adopts it or has it back."""

from rbee_shared.errors import InvalidRequestError, StaleEpochError

_MAX_DIGITS = 18


def parse_epoch(text: str | None) -> int | None:
    """The epoch that a header names; None without one.

    Raises:
        InvalidRequestError: that is no epoch.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise InvalidRequestError(f"{text[:_MAX_DIGITS]!r} is no epoch", hint="Leave the header X-Rbee-Epoch out.")
    return int(text)


def require_current_epoch(sent: int | None, current: int | None) -> None:
    """Refuse an order from before the hive was last taken. Who sends no epoch (an operator) is let through.

    Raises:
        StaleEpochError: it is one.
    """
    if sent is not None and current is not None and sent < current:
        raise StaleEpochError(
            f"the order is of epoch {sent}, the hive belongs to epoch {current}",
            details={"sent": sent, "current": current},
        )

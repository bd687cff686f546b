"""Which queen may give orders: the epoch counts the starts of a queen, and the youngest start of hers is in charge."""

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
    """Refuse the orders of a queen that was replaced. Who sends none (an operator) is let through.

    Raises:
        StaleEpochError: a later start of the queen owns the hive.
    """
    if sent is not None and current is not None and sent < current:
        raise StaleEpochError(
            f"the order is of epoch {sent}, the hive belongs to epoch {current}",
            details={"sent": sent, "current": current},
        )

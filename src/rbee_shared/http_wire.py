"""What every HTTP client of rbee sends and how it reads an answer, whichever library carries the bytes."""

import json
from typing import Any

from rbee_shared.errors import BadPeerError, error_from_body
from rbee_shared.narration import correlation_id

CORRELATION_HEADER = "X-Correlation-Id"
EPOCH_HEADER = "X-Rbee-Epoch"  # since which time the queen who gives the order has the hive
_NO_CONTENT = 204
_BAD_REQUEST = 400


def bearer(token: str | None) -> dict[str, str]:
    """Headers that carry the token and the user's correlation id."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if current := correlation_id.get():
        headers[CORRELATION_HEADER] = current
    return headers


def read_answer(status: int, content: bytes, *, what: str) -> dict[str, Any]:
    """The JSON object of an answer, or the error that it carries; `{}` for 204."""
    if status == _NO_CONTENT:
        return {}
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadPeerError(f"{what}: answered {status} without a JSON object")
    error = value.get("error")
    if status >= _BAD_REQUEST:
        if isinstance(error, dict):
            raise error_from_body(error)
        raise BadPeerError(f"{what}: answered {status}")
    return value

"""Keeps secrets out of what people read, and terminal control codes out of terminals."""

import math
import re
from collections.abc import Mapping
from typing import Any

_SECRET = re.compile(
    r"""(?ix)
    (?P<name> authorization["'\\]*\s*[:=]\s*["'\\]*\s*(?:bearer|basic)\s+ | bearer\s+
            | (?:api[_-]?key|token|secret|password)["'\\]*\s*[:=]\s*["'\\]* )
    (?P<value> [A-Za-z0-9._~+/=-]{8,} )
    """
)
_SECRET_NAME = re.compile(r"(?i)(?:api[_-]?key|token|secret|password|authorization)$")
_MAX_DEPTH = 32
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
# C0 without tab and newline, DEL, C1, the bidirectional overrides that reorder a line on screen, the line separators
# that break one, and lone surrogates, which no output encoding takes
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def fingerprint(secret: str) -> str:
    """Six hex digits that tell secrets apart without telling them."""
    import hashlib  # noqa: PLC0415 - 3 ms of start-up that most commands never need

    return hashlib.sha256(secret.encode()).hexdigest()[:6]


def redact(text: str) -> str:
    """Replace bearer tokens, keys and Hub tokens by their fingerprints."""
    text = _SECRET.sub(lambda match: f"{match['name']}<{fingerprint(match['value'])}>", text)
    return _HUB_TOKEN.sub(lambda match: f"<{fingerprint(match[0])}>", text)


def redact_all(value: Any, depth: int = 0) -> Any:
    """`redact` on every text inside a JSON-like value; what comes out can always be written as JSON again.

    Python reads `NaN`, and nests as deep as a peer likes; neither may make the writing of an error fail.
    """
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping | list | tuple) and depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {
            name: f"<{fingerprint(part)}>"
            if isinstance(part, str) and _SECRET_NAME.search(str(name))
            else redact_all(part, depth + 1)
            for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_all(part, depth + 1) for part in value]
    return value


def printable(text: str) -> str:
    """`text` without the control characters that could steer a terminal; tab and newline stay."""
    return _CONTROL.sub("", text)


def printable_line(text: str) -> str:
    """`printable`, on one line."""
    return printable(text).replace("\n", " ").strip()

"""Keeps secrets out of what people read, and terminal control codes out of terminals."""

import hashlib
import re

_SECRET = re.compile(
    r"""(?ix)
    (?P<name> authorization\s*[:=]\s*"?\s*bearer\s+ | bearer\s+
            | (?:api[_-]?key|token|secret|password)["']?\s*[:=]\s*["']? )
    (?P<value> [A-Za-z0-9._~+/=-]{16,} )
    """
)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
# C0 without tab and newline, DEL, C1, and the bidirectional overrides that reorder a line on screen
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def fingerprint(secret: str) -> str:
    """Six hex digits that tell secrets apart without telling them."""
    return hashlib.sha256(secret.encode()).hexdigest()[:6]


def redact(text: str) -> str:
    """Replace bearer tokens, keys and Hub tokens by their fingerprints."""
    text = _SECRET.sub(lambda match: f"{match['name']}<{fingerprint(match['value'])}>", text)
    return _HUB_TOKEN.sub(lambda match: f"<{fingerprint(match[0])}>", text)


def printable(text: str) -> str:
    """`text` without the control characters that could steer a terminal; tab and newline stay."""
    return _CONTROL.sub("", text)


def printable_line(text: str) -> str:
    """`printable`, on one line."""
    return printable(text).replace("\n", " ").strip()

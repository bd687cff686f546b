"""Identifiers: unguessable where they grant access, short where people read them."""

import os
import re

MAX_ID_LENGTH = 128
_SAFE = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def new_task_id() -> str:
    """128 random bits: knowing a task's id is what lets a client without a token follow and cancel it."""
    return f"task-{_random_hex(16)}"


def new_correlation_id() -> str:
    """One per request of a user; every hop narrates and logs it."""
    return f"req-{_random_hex(6)}"


def new_worker_id(backend: str) -> str:
    """Unique on a node for all practical purposes, and short enough to type."""
    return f"worker-{backend}-{_random_hex(4)}"


def new_instance_id() -> str:
    """One per process start: tells a restarted daemon from the one before it."""
    return _random_hex(8)


def new_secret() -> str:
    """A bearer token of 256 random bits."""
    import secrets  # noqa: PLC0415 - 4 ms that the keeper, which makes none, does not pay

    return secrets.token_urlsafe(32)


def is_safe_id(text: str) -> bool:
    """Whether `text` may be used as an id in paths, headers and log lines: ASCII letters, digits and `._:-`."""
    return _SAFE.fullmatch(text) is not None


def _random_hex(count_bytes: int) -> str:
    """As `secrets.token_hex` does it: from the system's generator."""
    return os.urandom(count_bytes).hex()

"""Bounds, constants and formats of a JSON schema: what of them llguidance enforces exactly.

Pure. It computes with 64-bit floats and repeats with counters, so numbers and counts have limits; what it reads in
another way than a validator, as the leap day of `date`, is written as a pattern of our own.
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from llm_worker_rbee.domain.refused_form import RefusedFormError

TYPES = frozenset({"null", "boolean", "number", "integer", "string", "array", "object"})
MAX_COUNT = {
    "minItems": 1_000,
    "maxItems": 1_000,
    "minProperties": 500,
    "maxProperties": 500,
    "minLength": 65_536,
    "maxLength": 65_536,
}
MAX_NUMBER = 2**53
MAX_DIVISOR_DIGITS = 6
MAX_COMMON_DIVISOR = 10_000  # llguidance keeps a state for each remainder

_YEAR = r"(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP_YEAR = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,59}[a-zA-Z0-9])?"
# Whole strings, and no more of them than every validator takes: no second 60, no year 0, no host name of 254 letters.
FORMAT_PATTERNS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    "hostname": rf"^{_LABEL}(?:\.{_LABEL}){{0,3}}$",
}
NATIVE_FORMATS = frozenset({"duration", "email", "ipv4", "ipv6", "uuid", "uri"})


def check_number(key: str, value: object) -> None:
    """`minimum` and its kind."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedFormError(f"{key} must be a number", (key,))
    if not math.isfinite(value) or abs(value) > MAX_NUMBER:
        raise RefusedFormError(f"{key} must lie between -2^53 and 2^53", (key,))


def check_count(key: str, value: object) -> int:
    """`minLength` and its kind."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT[key]:
        raise RefusedFormError(f"{key} must be an integer from 0 to {MAX_COUNT[key]}", (key,))
    return value


def divisor(value: object) -> Decimal:
    """`multipleOf`, exactly as written."""
    key = "multipleOf"
    check_number(key, value)
    exact = Decimal(str(value)).normalize()
    digits = max(0, -int(exact.as_tuple().exponent))
    if exact <= 0 or digits > MAX_DIVISOR_DIGITS or exact.scaleb(digits) > MAX_COMMON_DIVISOR:
        raise RefusedFormError(
            f"{key} must be positive, with at most {MAX_DIVISOR_DIGITS} digits after the point,"
            f" and at most {MAX_COMMON_DIVISOR} without it",
            (key,),
        )
    shifted = float(exact)
    for _ in range(digits):  # as llguidance does it, with its rounding
        shifted *= 10.0
    if shifted != exact.scaleb(digits):
        raise RefusedFormError(f"{key} {value} has no exact decimal form", (key,))
    return exact


def check_common_divisor(divisors: set[Decimal]) -> None:
    """Divisors that one number may have to meet together: their product is what llguidance computes with."""
    digits = max((max(0, -int(each.as_tuple().exponent)) for each in divisors), default=0)
    if math.prod(int(each.scaleb(digits)) for each in divisors) > MAX_COMMON_DIVISOR and len(divisors) > 1:
        raise RefusedFormError("the values of multipleOf that meet in one number are too large", ("multipleOf",))


def check_types(value: object) -> frozenset[str]:
    """`type`, one or several."""
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name in TYPES for name in names):
        raise RefusedFormError(f"type must be of {', '.join(sorted(TYPES))}", ("type",))
    return frozenset(names)


def check_names(key: str, value: object) -> list[str]:
    """`required`."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise RefusedFormError(f"{key} must be a list of strings", (key,))
    for name in value:
        check_text(key, name)
    return value


def check_constants(key: str, value: object) -> None:
    """`const` and `enum`: every value in them, however deep."""
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, str):
            check_text(key, each)
        elif isinstance(each, Mapping):
            todo += [*each, *each.values()]
        elif isinstance(each, list):
            todo += each
        elif each is not None and not isinstance(each, bool):
            check_number(key, each)


def check_text(key: str, text: str) -> None:
    """A text that an answer must be able to hold: no character is written by its number."""
    if any(
        (char < " " and char not in "\b\t\n\f\r") or char == "\x7f" or "\ud800" <= char <= "\udfff" for char in text
    ):
        raise RefusedFormError(f"a text in {key} holds a control character or half a surrogate pair", (key,))


def narrowed_format(name: object) -> dict[str, Any]:
    """`format` as what enforces it."""
    if isinstance(name, str) and name in FORMAT_PATTERNS:
        return {"pattern": FORMAT_PATTERNS[name]}
    if isinstance(name, str) and name in NATIVE_FORMATS:
        return {"format": name}
    known = ", ".join(sorted(NATIVE_FORMATS | FORMAT_PATTERNS.keys()))
    raise RefusedFormError(f"format must be one of {known}", ("format",))

"""How large a JSON value may be before anything else looks into it. Pure, and without recursion."""

from collections.abc import Mapping
from typing import Any

from llm_worker_rbee.domain.refused_form import RefusedFormError

MAX_VALUES = 20_000
MAX_CHARS = 131_072
MAX_NESTING = 100  # llguidance's parser of JSON gives up at 128
_END = object()


def check_size(value: Any) -> None:
    """Find out whether it is small enough, in time that its size does not determine.

    Raises:
        RefusedFormError: too many values or characters, or nested too deep.
    """
    levels = [iter([value])]
    count = chars = 0
    while levels:
        each = next(levels[-1], _END)
        if each is _END:
            levels.pop()
        elif isinstance(each, str):
            chars += len(each)
        elif isinstance(each, Mapping | list):
            count += len(each)
            chars += sum(map(len, each)) if isinstance(each, Mapping) else 0
            levels.append(iter(each.values() if isinstance(each, Mapping) else each))
            _refuse_beyond(count, chars, len(levels))
    _refuse_beyond(count, chars, 0)


def _refuse_beyond(count: int, chars: int, nesting: int) -> None:
    if nesting > MAX_NESTING:
        raise RefusedFormError(f"is nested more than {MAX_NESTING} deep")
    if count > MAX_VALUES:
        raise RefusedFormError(f"holds more than {MAX_VALUES} values")
    if chars > MAX_CHARS:
        raise RefusedFormError(f"holds more than {MAX_CHARS} characters")

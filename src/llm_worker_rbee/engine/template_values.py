"""What a chat template may do with texts, lists, dictionaries and numbers: operators and methods, each bounded.

Only what stands here can be called on a value. Whatever could make a large value is asked for its size first, and
what could search for long is refused: one call of C code cannot be interrupted. Of the project it imports
`domain.render_limits` alone: the child that tries a template imports it too.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from jinja2 import Environment
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedFormatter
from typing_extensions import override

from llm_worker_rbee.domain.render_limits import MAX_INT_BITS, MAX_ITEMS, Meter, weigh

_MAX_STRIPPED = 256
# backwards, text and pattern are compared at every place
_MAX_BACKWARD_STEPS = 2**26
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_MAX_FIELD = 2000  # of a number in `%`: 309 digits of a float, or a width and a precision of three digits
_PERCENT = re.compile(r"%(?:\([^()]*\))?[#0\- +]*[0-9]{0,3}(?:\.[0-9]{0,3})?[diouxXeEfFgGcrsa%]")

Method = Callable[..., Any]

BINARY: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {
        "+": operator.add,
        "-": operator.sub,
        "*": operator.mul,
        "/": operator.truediv,
        "//": operator.floordiv,
        "**": operator.pow,
        "%": operator.mod,
    }
)


def operate(meter: Meter, name: str, left: Any, right: Any) -> Any:
    """`left` and `right` joined by the operator `name`."""
    if name == "%" and isinstance(left, str):
        return percent(meter, left, right)
    if name == "+" and isinstance(left, str | list | tuple):
        meter.room(_size(left) + _size(right))
    elif name == "*":
        for one, other in ((left, right), (right, left)):
            if isinstance(one, str | list | tuple) and isinstance(other, int):
                meter.room(_size(one) * other)
    if name in {"*", "**"} and isinstance(left, int) and isinstance(right, int):
        _require_small(left, right if name == "**" else 1, right.bit_length() if name == "*" else 0)
    return meter.keep(BINARY[name](left, right))


def _require_small(base: int, exponent: int, more_bits: int) -> None:
    if base.bit_length() * abs(exponent) + more_bits > MAX_INT_BITS:
        raise SecurityError("it calculates with numbers that are too large")


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str) else weigh(value)


def percent(meter: Meter, form: str, values: Any) -> Any:
    """`form % values`. Widths have three digits at most, and none comes from `values`."""
    fields, at = 0, form.find("%")
    while at >= 0:
        meter.tick()
        match = _PERCENT.match(form, at)
        if match is None:
            raise SecurityError(f"a format that is not supported: {form[at : at + 20]!r}")
        fields += 1
        at = form.find("%", match.end())
    by_name = fields if isinstance(values, dict) else 1
    meter.room(len(form) + fields * _MAX_FIELD + by_name * weigh(values))
    return meter.keep(form % values)


class BoundedFormatter(SandboxedFormatter):
    """`str.format`, without wide fields."""

    def __init__(self, meter: Meter, environment: Environment) -> None:
        super().__init__(environment)
        self._meter = meter
        self._size = 0

    @override
    def convert_field(self, value: Any, conversion: Any) -> Any:
        self._meter.room(weigh(value))
        return super().convert_field(value, conversion)

    @override
    def format_field(self, value: Any, format_spec: str) -> str:
        self._meter.tick()
        if re.search(r"\d{4}", format_spec):
            raise SecurityError("a width in a format is too large")
        shown = value if isinstance(value, int | float) else self._meter.text(value)
        text = str(super().format_field(shown, format_spec))
        self._size += len(text)
        self._meter.room(self._size)
        return text


def _plain(name: str) -> Method:
    """A method whose result is hardly larger than its text, found in one walk through it."""
    function = getattr(str, name)

    def method(meter: Meter, text: str, *args: Any, **kwargs: Any) -> Any:
        return meter.keep(function(text, *args, **kwargs))

    return method


def _backward(name: str) -> Method:
    function = getattr(str, name)

    def method(meter: Meter, text: str, pattern: Any = None, *args: Any) -> Any:
        _require_short(name, text, pattern)
        return meter.keep(function(text, pattern, *args))

    return method


def _require_short(name: str, text: str, pattern: Any) -> None:
    if isinstance(pattern, str) and len(text) * len(pattern) > _MAX_BACKWARD_STEPS:
        raise SecurityError(f"{name} searches for a text that is too long")


def _strip(name: str) -> Method:
    function = getattr(str, name)

    def method(meter: Meter, text: str, characters: Any = None) -> Any:
        if isinstance(characters, str) and len(characters) > _MAX_STRIPPED:
            raise SecurityError(f"{name} is given more than {_MAX_STRIPPED} characters")
        return meter.keep(function(text, characters))

    return method


def _pad(name: str) -> Method:
    function = getattr(str, name)

    def method(meter: Meter, text: str, width: Any, *args: Any) -> Any:
        meter.room(width)
        return meter.keep(function(text, width, *args))

    return method


def _split(name: str) -> Method:
    function = getattr(str, name)

    def method(meter: Meter, text: str, sep: Any = None, maxsplit: Any = -1) -> Any:
        if name == "rsplit":
            _require_short(name, text, sep)
        most = min(maxsplit, MAX_ITEMS) if maxsplit >= 0 else MAX_ITEMS
        return meter.keep(function(text, sep, most))

    return method


def _split_lines(meter: Meter, text: str, keepends: Any = None) -> Any:
    meter.items(sum(map(text.count, _LINE_ENDS)))
    return meter.keep(text.splitlines(bool(keepends)))


def join(meter: Meter, separator: str, values: Iterable[Any]) -> Any:
    texts = list(meter.each(values))
    meter.room(sum(len(text) + len(separator) for text in texts))
    return meter.keep(separator.join(texts))


def replace(meter: Meter, text: str, old: Any, new: Any, count: Any = -1) -> Any:
    if isinstance(old, str) and isinstance(new, str):
        found = text.count(old) if count is None or count < 0 else min(count, text.count(old))
        meter.room(len(text) + found * max(0, len(new) - len(old)))
    return meter.keep(text.replace(old, new, -1 if count is None else count))


_TEXT: dict[str, Method] = {
    **{
        name: _plain(name)
        for name in (
            *("capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii"),
            *("isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle"),
            *("isupper", "lower", "partition", "removeprefix", "removesuffix", "startswith", "swapcase", "title"),
            "upper",
        )
    },
    **{name: _backward(name) for name in ("rfind", "rindex", "rpartition")},
    **{name: _strip(name) for name in ("strip", "lstrip", "rstrip")},
    **{name: _pad(name) for name in ("center", "ljust", "rjust", "zfill")},
    **{name: _split(name) for name in ("split", "rsplit")},
    "splitlines": _split_lines,
    "join": join,
    "replace": replace,
}

_DICT: dict[str, Method] = {
    "get": lambda _, data, key, default=None: data.get(key, default),
    "items": lambda meter, data: meter.keep(list(data.items())),
    "keys": lambda meter, data: meter.keep(list(data)),
    "values": lambda meter, data: meter.keep(list(data.values())),
    "copy": lambda meter, data: meter.keep(dict(data)),
}

_SEQUENCE: dict[str, Method] = {
    "index": lambda _, data, *args: data.index(*args),
    "count": lambda _, data, value: data.count(value),
}


def cut(meter: Meter, value: Any, start: Any, stop: Any, step: Any) -> Any:
    """`value[start:stop:step]`."""
    return meter.keep(value[start:stop:step])


def methods_of(value: Any) -> Mapping[str, Method] | None:
    """The methods of a value that is data; None when it is one of Jinja's own objects, which have no others."""
    if isinstance(value, str):
        return _TEXT
    if isinstance(value, dict):
        return _DICT
    if isinstance(value, list | tuple):
        return _SEQUENCE
    return {} if value is None or isinstance(value, int | float | complex | range) else None

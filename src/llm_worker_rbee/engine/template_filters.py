"""The filters, tests and functions that chat templates in the field use, each under the meter of its rendering.

Not all of Jinja's: what only web pages need (`urlize`, `striptags`, `wordwrap` and the like) runs regular expressions
that nothing can stop. A filter's result is never lazy, so that its cost falls where it is called.
"""

import datetime
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from jinja2.exceptions import SecurityError, TemplateError
from jinja2.filters import FILTERS as JINJAS_FILTERS
from jinja2.filters import make_attrgetter
from jinja2.runtime import Context
from jinja2.sandbox import safe_range
from jinja2.tests import TESTS as JINJAS_TESTS
from jinja2.utils import Namespace, pass_context
from markupsafe import escape
from typing_extensions import override

from llm_worker_rbee.domain.render_limits import MAX_ITEMS, Meter, weigh
from llm_worker_rbee.engine.template_values import cut, join, operate, percent, replace

_MAX_DIGITS = 400
_MAX_PRECISION = 20
_MAX_INDENT = 256
_MAX_STRIPPED = 256
_MAX_STRFTIME = 256

_JINJAS_OWN = (
    *("abs", "attr", "batch", "capitalize", "count", "d", "default", "dictsort", "first", "items", "last", "length"),
    *("list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr", "slice"),
    *("sort", "title", "trim", "truncate", "unique", "upper"),
)


def meter_of(context: Context) -> Meter:
    meter: Meter = context.environment.meter  # type: ignore[attr-defined]
    return meter


def _metered(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(meter, value, ...)` as a filter."""

    @pass_context
    def metered(context: Context, *args: Any, **kwargs: Any) -> Any:
        meter = meter_of(context)
        meter.tick()
        return function(meter, *args, **kwargs)

    return metered


def _guarded(function: Any) -> Callable[..., Any]:
    """One of Jinja's own filters or tests: what it makes is kept, and nothing of it is left to be made later."""
    passed = getattr(function, "jinja_pass_arg", None)
    first = passed.name if passed is not None else None

    @pass_context
    def guarded(context: Context, *args: Any, **kwargs: Any) -> Any:
        meter = meter_of(context)
        meter.tick()
        _require_small(args[1:], kwargs)
        before = {"context": (context,), "eval_context": (context.eval_ctx,), "environment": (context.environment,)}
        made = function(*before.get(first or "", ()), *args, **kwargs)
        return meter.keep(list(meter.each(made)) if isinstance(made, Iterator) else made)

    return guarded


def _require_small(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """A number that is given to a filter is a count of something it makes."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, int) and abs(value) > MAX_ITEMS:
            raise SecurityError(f"a filter is given {value}")


def _trim(meter: Meter, value: Any, chars: Any = None) -> Any:
    if isinstance(chars, str) and len(chars) > _MAX_STRIPPED:
        raise SecurityError(f"trim is given more than {_MAX_STRIPPED} characters")
    return meter.keep(meter.text(value).strip(chars))


def _center(meter: Meter, value: Any, width: int = 80) -> Any:
    meter.room(width)
    return meter.keep(meter.text(value).center(width))


def _indent(meter: Meter, value: Any, width: Any = 4, first: Any = None, blank: Any = None) -> Any:
    text = meter.text(value)
    size = len(width) if isinstance(width, str) else int(width)
    if size > _MAX_INDENT:
        raise SecurityError(f"it indents by more than {_MAX_INDENT}")
    lines = text.count("\n") + 1
    meter.items(lines)
    meter.room(len(text) + lines * size)
    return meter.keep(JINJAS_FILTERS["indent"](text, width, first, blank))


@pass_context
def _join(context: Context, value: Any, d: Any = "", attribute: Any = None) -> Any:
    meter = meter_of(context)
    values = meter.each(value)
    if attribute is not None:
        values = map(make_attrgetter(context.environment, attribute), values)
    return join(meter, meter.text(d), map(meter.text, values))


def _sum(meter: Meter, value: Any, start: Any = 0) -> Any:
    return functools.reduce(functools.partial(operate, meter, "+"), meter.each(value), start)


@pass_context
def _sum_of(context: Context, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    meter = meter_of(context)
    if attribute is not None:
        value = map(make_attrgetter(context.environment, attribute), value)
    return _sum(meter, value, start)


def _replace(meter: Meter, value: Any, old: Any, new: Any, count: Any = None) -> Any:
    return replace(meter, meter.text(value), meter.text(old), meter.text(new), count)


def _format(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> Any:
    if args and kwargs:
        raise TypeError("format takes names or positions, not both")
    return percent(meter, meter.text(value), kwargs or args)


def _string(meter: Meter, value: Any) -> Any:
    return meter.keep(meter.text(value))


def _escape(meter: Meter, value: Any) -> Any:
    return meter.keep(str(escape(meter.text(value))))


def _number(name: str) -> Callable[..., Any]:
    function = JINJAS_FILTERS[name]

    def number(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, str) and len(value) > _MAX_DIGITS:
            raise SecurityError("a number has too many digits")
        return meter.keep(function(value, *args, **kwargs))

    return number


def _round(meter: Meter, value: Any, precision: int = 0, method: Any = "common") -> Any:
    if abs(precision) > _MAX_PRECISION:
        raise SecurityError(f"it rounds to {precision} digits")
    return meter.keep(JINJAS_FILTERS["round"](value, precision, method))


def _to_json(
    meter: Meter,
    value: Any,
    indent: Any = None,
    *,
    ensure_ascii: Any = False,
    separators: Any = None,
    sort_keys: Any = False,
) -> Any:
    """JSON as in Hugging Face's templates; Jinja's own escapes for HTML."""
    meter.room(weigh(value))
    for given in (indent if isinstance(indent, str) else "", *(separators or ())):
        if len(given) > _MAX_INDENT:
            raise SecurityError("a separator in JSON is too long")
    if isinstance(indent, int) and indent > _MAX_INDENT:
        raise SecurityError(f"it indents by more than {_MAX_INDENT}")
    encoder = json.JSONEncoder(
        ensure_ascii=bool(ensure_ascii), indent=indent, separators=separators, sort_keys=bool(sort_keys)
    )
    parts, size = [], 0
    for part in encoder.iterencode(value):
        meter.tick()
        size += len(part)
        meter.room(size)
        parts.append(part)
    return meter.keep("".join(parts))


FILTERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        **{name: _guarded(JINJAS_FILTERS[name]) for name in _JINJAS_OWN},
        **{name: _metered(_escape) for name in ("e", "escape")},
        **{name: _metered(_string) for name in ("safe", "string")},
        **{name: _metered(_number(name)) for name in ("int", "float")},
        "trim": _metered(_trim),
        "center": _metered(_center),
        "indent": _metered(_indent),
        "join": _join,
        "sum": _sum_of,
        "replace": _metered(_replace),
        "format": _metered(_format),
        "round": _metered(_round),
        "tojson": _metered(_to_json),
        # what the sandbox makes of operators that Jinja does not let it watch
        "_concat": _metered(lambda meter, *values: join(meter, "", map(meter.text, values))),
        "_cut": _metered(cut),
        "_keep": _metered(lambda meter, value: meter.keep(value)),
        "_tick": _metered(lambda _, value: value),
    }
)

TESTS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {name: _guarded(function) for name, function in JINJAS_TESTS.items()}
)


class Space(Namespace):
    """`namespace()`. As text it does not show what is in it, which could be itself."""

    @override
    def __repr__(self) -> str:
        return "<namespace>"


def _namespace(*args: Any, **kwargs: Any) -> Space:
    return Space(*args, **kwargs)


@pass_context
def _dict(context: Context, *args: Any, **kwargs: Any) -> Any:
    return meter_of(context).keep(dict(*args, **kwargs))


@pass_context
def _raise(context: Context, message: Any = "") -> NoReturn:
    raise TemplateError(meter_of(context).text(message))


def _strftime_now(form: str) -> str:
    if len(form) > _MAX_STRFTIME:
        raise SecurityError("a form for the time is too long")
    return datetime.datetime.now().astimezone().strftime(form)


GLOBALS: Mapping[str, Any] = MappingProxyType(
    {
        "range": safe_range,
        "dict": _dict,
        "namespace": _namespace,
        "raise_exception": _raise,
        "strftime_now": _strftime_now,
    }
)

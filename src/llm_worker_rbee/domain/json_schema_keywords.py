"""The keywords of JSON Schema that hold no schemas: each checked, and written as llguidance enforces it. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from llm_worker_rbee.domain import json_schema_values as values
from llm_worker_rbee.domain.json_schema_pattern import rust_pattern
from llm_worker_rbee.domain.refused_form import RefusedFormError

_DIALECTS = ("http://json-schema.org/", "https://json-schema.org/")
_ANNOTATIONS = frozenset(
    (
        *("$anchor", "$comment", "$defs", "definitions", "title", "description", "default", "example", "examples"),
        *("deprecated", "readOnly", "writeOnly", "discriminator", "contentEncoding", "contentMediaType"),
    )
)
_EXCLUSIVE = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}
Schema = Mapping[str, Any]
Write = Callable[[dict[str, Any], str, Any, Schema], None]


def is_annotation(key: str) -> bool:
    """Whether it says nothing about what is valid."""
    return key in _ANNOTATIONS or key.startswith("x-")


def written_pattern(key: str, pattern: str) -> str:
    """A regular expression that stands at or in `key`, for llguidance."""
    try:
        return rust_pattern(pattern)
    except RefusedFormError as error:
        raise RefusedFormError(f"{key}: {error}", (key,)) from None


def _number(out: dict[str, Any], key: str, value: Any, _: Schema) -> None:
    values.check_number(key, value)
    out[key] = value


def _count(out: dict[str, Any], key: str, value: Any, _: Schema) -> None:
    out[key] = values.check_count(key, value)


def _divisor(out: dict[str, Any], key: str, value: Any, _: Schema) -> None:
    values.divisor(value)
    out[key] = value


def _type(out: dict[str, Any], key: str, value: Any, schema: Schema) -> None:
    """Numbers without bounds get some: a small model counts on for ever, and readers differ beyond 2^53."""
    out[key] = value
    if values.check_types(value) & {"number", "integer"}:
        limits = {"minimum": -values.MAX_NUMBER, "maximum": values.MAX_NUMBER}
        out.update({each: limit for each, limit in limits.items() if not schema.keys() & {each, _EXCLUSIVE[each]}})


def _constant(out: dict[str, Any], key: str, value: Any, _: Schema) -> None:
    if key == "enum" and not (isinstance(value, list) and value):
        raise RefusedFormError("enum must be a list of values", ("enum",))
    values.check_constants(key, value)
    out[key] = value


def _pattern(out: dict[str, Any], key: str, value: Any, _: Schema) -> None:
    if not isinstance(value, str):
        raise RefusedFormError("pattern must be a string", ("pattern",))
    out[key] = written_pattern(key, value)


def _format(out: dict[str, Any], _: str, value: Any, schema: Schema) -> None:
    narrowed = values.narrowed_format(value)
    if "pattern" in narrowed and "pattern" in schema:
        out.setdefault("allOf", []).append(narrowed)  # beside those of the schema itself
    else:
        out.update(narrowed)


def _names(out: dict[str, Any], key: str, value: Any, _: Schema) -> None:
    out[key] = values.check_names(key, value)


def _fewest(out: dict[str, Any], key: str, value: Any, schema: Schema) -> None:
    """Names that `properties` does not list may come twice, and count once when read: one is all they can promise."""
    least = values.check_count(key, value)
    named = len(set(values.check_names("required", schema.get("required", []))))
    if least > max(1, named):
        raise RefusedFormError("minProperties is enforced up to 1, or to the number of required names", (key,))
    if least > named:
        out[key] = least


def _unique(_out: dict[str, Any], key: str, value: Any, _: Schema) -> None:
    if value is not False:
        raise RefusedFormError("uniqueItems cannot be enforced", (key,))


def _dialect(_out: dict[str, Any], key: str, value: Any, _: Schema) -> None:
    if not isinstance(value, str) or not value.startswith(_DIALECTS):
        raise RefusedFormError("$schema names a dialect that is not known", (key,))


WRITERS: dict[str, Write] = {
    "$schema": _dialect,
    "type": _type,
    "const": _constant,
    "enum": _constant,
    "minimum": _number,
    "maximum": _number,
    "exclusiveMinimum": _number,
    "exclusiveMaximum": _number,
    "multipleOf": _divisor,
    "minLength": _count,
    "maxLength": _count,
    "pattern": _pattern,
    "format": _format,
    "minItems": _count,
    "maxItems": _count,
    "uniqueItems": _unique,
    "required": _names,
    "minProperties": _fewest,
    "maxProperties": _count,
}

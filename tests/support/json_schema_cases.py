"""JSON schemas: what each keyword must allow and forbid, and what is refused by which name."""

from typing import Any

import pytest

Schema = dict[str, Any]


def nested(depth: int, schema: Schema) -> Schema:
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


NESTED_IN_ENUM: list[Any] = []
for _ in range(50_000):
    NESTED_IN_ENUM = [NESTED_IN_ENUM]


def in_object(schema: Any) -> Schema:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"]}


# a schema, and the keys that its refusal must name; none where no single key is at fault
REFUSED_SCHEMAS = [
    pytest.param({"not": {"type": "string"}}, ["not"], id="not"),
    pytest.param({"type": "array", "uniqueItems": True}, ["uniqueItems"], id="uniqueItems"),
    pytest.param(
        {"type": "array", "contains": {"const": 1}, "minContains": 2}, ["contains", "minContains"], id="contains"
    ),
    pytest.param({"if": {"minimum": 1}, "then": {}, "else": {}}, ["else", "if", "then"], id="if"),
    pytest.param(
        {"dependentSchemas": {}, "dependentRequired": {}}, ["dependentRequired", "dependentSchemas"], id="dependent"
    ),
    pytest.param({"type": "object", "propertyNames": {"maxLength": 3}}, ["propertyNames"], id="propertyNames"),
    pytest.param(
        {"unevaluatedProperties": False, "unevaluatedItems": False},
        ["unevaluatedItems", "unevaluatedProperties"],
        id="unevaluated",
    ),
    pytest.param({"$dynamicRef": "#x"}, ["$dynamicRef"], id="dynamic references"),
    pytest.param(in_object({"type": "string", "maxLenght": 3}), ["maxLenght"], id="a word that nobody knows"),
    pytest.param(in_object({"type": "string", "nullable": True}), ["nullable"], id="a word of OpenAPI"),
    pytest.param(in_object({"$id": "http://x/", "type": "string"}), ["$id"], id="another base for references"),
    pytest.param({"type": "array", "items": [{}], "additionalItems": False}, ["items"], id="items of old"),
    pytest.param({"type": "string", "format": "regex"}, ["format"], id="an unknown format"),
    pytest.param({"type": "string", "format": "unknown"}, ["format"], id="a format that llguidance ignores"),
    pytest.param({"type": "string", "format": ["date"]}, ["format"], id="no format"),
    pytest.param(
        {"oneOf": [{"type": "string"}, {"minLength": 3, "type": "string"}]}, ["oneOf"], id="oneOf that may overlap"
    ),
    pytest.param({"type": "object", "minProperties": 2}, ["minProperties"], id="several unnamed properties"),
    pytest.param({"$ref": "https://example.com/schema"}, ["$ref"], id="a remote reference"),
    pytest.param({"$ref": "#/$defs/x"}, ["$ref"], id="a reference to nothing"),
    pytest.param({"$ref": 3}, ["$ref"], id="no reference"),
    pytest.param({"$ref": "#"}, ["$ref"], id="a reference to itself"),
    pytest.param(
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, ["$ref"], id="a loop"
    ),
    pytest.param({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, ["$ref"], id="a loop with a way out"),
    pytest.param({"type": "integer", "multipleOf": 0}, ["multipleOf"], id="multiple of nothing"),
    pytest.param({"type": "number", "multipleOf": 1e-20}, ["multipleOf"], id="multiple of next to nothing"),
    pytest.param(
        {"type": "integer", "allOf": [{"multipleOf": 65537}, {"multipleOf": 65539}]},
        ["multipleOf"],
        id="multiple of both",
    ),
    pytest.param({"type": "integer", "minimum": 2**53 + 1}, ["minimum"], id="a bound beyond 2^53"),
    pytest.param({"type": "number", "maximum": float("inf")}, ["maximum"], id="an infinite bound"),
    pytest.param({"type": "number", "minimum": 1, "exclusiveMinimum": True}, ["exclusiveMinimum"], id="a bound of old"),
    pytest.param({"const": 2**60}, ["const"], id="a constant beyond 2^53"),
    pytest.param({"enum": ["\x01"]}, ["enum"], id="a control character"),
    pytest.param({"enum": []}, ["enum"], id="no value"),
    pytest.param({"type": "text"}, ["type"], id="no type"),
    pytest.param({"type": "array", "minItems": 10**9}, ["minItems"], id="enormous minItems"),
    pytest.param({"type": "array", "items": {}, "maxItems": -1}, ["maxItems"], id="negative maxItems"),
    pytest.param({"type": "string", "maxLength": 10**12}, ["maxLength"], id="enormous maxLength"),
    pytest.param({"type": "string", "minLength": 1.5}, ["minLength"], id="half a character"),
    pytest.param({"type": "string", "pattern": "("}, ["pattern"], id="no pattern"),
    pytest.param({"type": "string", "pattern": r"(a)\1"}, ["pattern"], id="a pattern that looks back"),
    pytest.param({"type": "string", "pattern": "(?=a)b"}, ["pattern"], id="a pattern that looks ahead"),
    pytest.param({"type": "string", "pattern": "(?i)a"}, ["pattern"], id="a pattern with flags"),
    pytest.param({"type": "string", "pattern": r"\bword\b"}, ["pattern"], id="word boundaries"),
    pytest.param({"type": "string", "pattern": "(" * 900 + ")" * 900}, ["pattern"], id="a pattern nested deep"),
    pytest.param({"type": "string", "pattern": "a" * 100_000}, ["pattern"], id="a long pattern"),
    pytest.param({"type": "object", "patternProperties": {"(": {}}}, ["patternProperties"], id="no pattern of names"),
    pytest.param(
        {"type": "object", "patternProperties": {"a": {}, "b": {}}}, ["patternProperties"], id="names of two patterns"
    ),
    pytest.param({"$schema": "https://example.com/dialect"}, ["$schema"], id="an unknown dialect"),
    pytest.param(
        {"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}},
        ["uniqueItems"],
        id="a wish to be lenient",
    ),
    pytest.param({"properties": {str(n): {} for n in range(5000)}}, ["properties"], id="5,000 properties"),
    pytest.param({"oneOf": [{"const": n} for n in range(5000)]}, ["oneOf"], id="5,000 branches"),
    # no key is at fault alone
    pytest.param({"enum": list(range(100_000))}, [], id="an enormous enum"),
    pytest.param({"enum": NESTED_IN_ENUM}, [], id="a constant nested deep"),
    pytest.param({"enum": ["x" * 1_000_000]}, [], id="an enormous text"),
    pytest.param(nested(90_000, {}), [], id="a megabyte deep"),
    pytest.param(
        {"$ref": "#/$defs/0", "$defs": {str(n): {"items": {"$ref": f"#/$defs/{n + 1}"}} for n in range(3000)}},
        [],
        id="references that end nowhere",
    ),
    pytest.param(
        {
            "$ref": "#/$defs/0",
            "$defs": {**{str(n): {"items": {"$ref": f"#/$defs/{n + 1}"}} for n in range(2900)}, "2900": {}},
        },
        [],
        id="references that go deep",
    ),
    pytest.param(
        {"allOf": [{"anyOf": [{"properties": {f"{n}.{m}": {"type": "null"}}} for n in range(10)]} for m in range(5)]},
        [],
        id="an explosion of cases",
    ),
    pytest.param(in_object({"$ref": "#"}), [], id="nothing finite"),
    pytest.param(in_object(False), [], id="nothing at all"),
    pytest.param({"type": "integer", "minimum": 3, "maximum": 2}, [], id="no number"),
    pytest.param({"type": "integer", "minimum": 1, "maximum": 2, "multipleOf": 5}, [], id="no multiple"),
    pytest.param({"type": "string", "minLength": 3, "maxLength": 2}, [], id="no length"),
    pytest.param({"type": "string", "pattern": "^a{5}$", "maxLength": 3}, [], id="no text"),
    pytest.param({"allOf": [{"type": "string"}, {"type": "integer"}]}, [], id="no type for both"),
    pytest.param(in_object({"const": "a", "minLength": 2}), [], id="no constant"),
    pytest.param(
        {"type": "object", "required": ["a"], "additionalProperties": False}, [], id="no name for what is required"
    ),
    pytest.param({"anyOf": 3}, ["anyOf"], id="no list of schemas"),
    pytest.param({"items": 3}, ["items"], id="no schema"),
    pytest.param({"anyOf": [3]}, [], id="no schema in a list"),
    pytest.param({"properties": []}, ["properties"], id="no properties"),
    pytest.param({"required": "a"}, ["required"], id="no list of names"),
]

# refused or followed, but in bounded time and memory
HOSTILE_SCHEMAS = [
    pytest.param({"type": "string", "pattern": "^(x+x+)+y$"}, id="a pattern that backtracks"),
    pytest.param({"type": "string", "pattern": "^(a|aa|aaa)*b(a?){100}a{100}$"}, id="another"),
    pytest.param({"type": "string", "pattern": "^((a{1,1000}){1,1000}){1,1000}$"}, id="a pattern of 10^9 letters"),
    pytest.param({"type": "string", "pattern": "a.{200}b.{200}c"}, id="a pattern of 2^200 states"),
    pytest.param({"type": "string", "format": "uri", "minLength": 10_000}, id="a long address"),
    pytest.param(
        {"type": "array", "minItems": 1000, "items": nested(50, {"type": "array", "minItems": 1000})},
        id="1000^50 items",
    ),
    pytest.param({"enum": [f"value {n}" for n in range(10_000)]}, id="10,000 values"),
    pytest.param(
        {"type": "object", "properties": {f"p{n}": {"type": "string", "format": "email"} for n in range(500)}},
        id="500 addresses",
    ),
    pytest.param({"type": "integer", "multipleOf": 9_973}, id="multiples of a large prime"),
]

# a schema, whole answers that it allows, and some that it does not
ENFORCED_KEYWORDS: list[tuple[Schema, list[str], list[str]]] = [
    ({"type": "integer", "minimum": -3, "maximum": 12}, ["-3", "0", "12"], ["-4", "13", "1.0", "01", "+1"]),
    ({"type": "number", "exclusiveMinimum": 1.5, "exclusiveMaximum": 2}, ["1.51", "1.9"], ["1.5", "2", "2.0"]),
    ({"type": "integer", "multipleOf": 7}, ["0", "-14", "21"], ["1", "20"]),
    ({"type": "number", "multipleOf": 0.5}, ["1.5", "-2", "3.0"], ["1.25", "0.1"]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ['"日本"', '"a\\n\\""', '"é日😀"'], ['"日"', '"abcd"']),
    ({"type": "string", "pattern": "b+"}, ['"abc"'], ['"ac"']),
    ({"type": "string", "pattern": "^[a&&b]$"}, ['"a"', '"&"', '"b"'], ['"c"', '"&&"']),
    ({"type": "string", "pattern": r"^\d$"}, ['"1"'], ['"\u0661"']),
    ({"type": "string", "pattern": r"^[^\s]$"}, ['"1"'], ['" "', '"\u00a0"']),
    ({"type": "string", "format": "date"}, ['"2024-02-29"'], ['"2023-02-29"', '"2024-13-01"', '"0000-01-01"']),
    ({"type": "string", "format": "time"}, ['"23:59:59Z"', '"01:02:03.5+01:00"'], ['"23:59:60Z"', '"24:00:00Z"']),
    ({"type": "string", "format": "date-time"}, ['"2000-02-29T01:02:03Z"'], ['"1900-02-29T01:02:03Z"']),
    ({"type": "string", "format": "uuid"}, ['"01234567-89ab-cdef-0123-456789abcdef"'], ['"0123"']),
    ({"type": "string", "format": "ipv4"}, ['"127.0.0.1"'], ['"256.0.0.1"', '"1.2.3"']),
    ({"type": "string", "format": "ipv6"}, ['"::1"', '"fe80::1:2"'], ['"1:2"', '":::"']),
    ({"type": "string", "format": "email"}, ['"a.b@c.de"'], ['"a@"', '"@b"']),
    ({"type": "string", "format": "hostname"}, ['"a-b.example"'], ['"-a"', '"a..b"']),
    ({"type": "string", "format": "uri"}, ['"https://a.b/c?d#e"'], ['"a b"', '"//x"']),
    ({"type": "string", "format": "duration"}, ['"P1DT2H"'], ['"1D"', '"P"']),
    ({"type": "string", "format": "date", "pattern": "^20"}, ['"2024-02-29"'], ['"1999-01-01"', '"20"']),
    (
        {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 2},
        ["[null]"],
        ["[]", "[1]", "[null,null,null]"],
    ),
    ({"type": "array", "prefixItems": [{"type": "null"}], "items": False}, ["[null]", "[]"], ["[1]", "[null,null]"]),
    (
        {"type": "object", "required": ["a"], "properties": {"b": {"type": "null"}}},
        ['{"b":null,"a":1}'],
        ["{}", '{"b":1,"a":1}'],
    ),
    ({"type": "object", "additionalProperties": {"type": "null"}}, ["{}", '{"x":null}'], ['{"x":1}']),
    ({"type": "object", "properties": {"a": {}}, "additionalProperties": False}, ['{"a":[1]}'], ['{"b":1}']),
    (
        {"type": "object", "patternProperties": {"^n": {"type": "null"}}, "additionalProperties": False},
        ['{"no":null}'],
        ['{"no":1}', '{"x":null}'],
    ),
    ({"type": "object", "minProperties": 1, "maxProperties": 1}, ['{"x":1}'], ["{}", '{"x":1,"y":1}']),
    ({"const": {"a": [1, None]}}, ['{"a":[1,null]}'], ["{}", '{"a":[1,2]}']),
    ({"enum": ["a", 1, None]}, ['"a"', "1", "null"], ['"b"', "true"]),
    ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, ["null", "5"], ['"x"']),
    ({"oneOf": [{"type": "null"}, {"type": "integer"}]}, ["null", "5"], ['"x"']),
    ({"allOf": [{"type": "string", "minLength": 2}, {"maxLength": 2}]}, ['"ab"'], ['"a"', '"abc"']),
    ({"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"type": "null"}}}, ["null"], ["1"]),
    ({"type": ["integer", "null"]}, ["1", "null"], ['"a"', "1.5"]),
    (in_object({"anyOf": [{"type": "null"}, {"$ref": "#"}]}), ['{"a":{"a":null}}'], ['{"a":{}}']),
    (
        {"type": "object", "properties": {"a": {"type": "integer"}}},
        ['{"a":1,"b":"x"}'],
        ['{"a":"x"}', '{"\\u0061":"x"}'],
    ),
    (
        {"type": "null", "title": "t", "x-guidance": {"whitespace_pattern": "x"}, "default": 1, "examples": []},
        ["null"],
        ["x"],
    ),
    ({"$schema": "http://json-schema.org/draft-07/schema#", "$id": "http://x/", "type": "null"}, ["null"], ["1"]),
]

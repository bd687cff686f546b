"""Decisions about the form of answers: grammars and schemas as they are handed to llguidance, or refused."""

import re
from itertools import permutations
from typing import Any

import pytest

from llm_worker_rbee.domain.gbnf_to_lark import gbnf_to_lark
from llm_worker_rbee.domain.horn import provable
from llm_worker_rbee.domain.json_pointer import resolve
from llm_worker_rbee.domain.json_schema_pattern import rust_pattern
from llm_worker_rbee.domain.json_schema_rules import enforceable_schema
from llm_worker_rbee.domain.refused_form import RefusedFormError

BOUNDS = {"minimum": -(2**53), "maximum": 2**53}


@pytest.mark.parametrize(
    ("pattern", "written"),
    [
        ("a.b", r"\x{61}[^\x{A}\x{D}\x{2028}\x{2029}]\x{62}"),
        (r"^\d+$", "^[0-9]+$"),
        (r"\D\W", r"\P{Nd}[^\p{Alphabetic}\p{M}\p{N}\p{Pc}\p{Join_Control}]"),
        (r"[^\d]", r"[^\p{Nd}]"),
        (r"[^\W_]", r"[^[^0-9A-Za-z_]\x{5F}]"),
        (r"[a-c\-x]", r"[\x{61}-\x{63}\x{2D}\x{78}]"),
        (r"[\b]\t\x41\u00e9\cJ\/", r"[\x{8}]\x{9}\x{41}\x{E9}\x{A}\x{2F}"),
        (r"\p{L}[\P{Nd}]", r"\p{L}[\P{Nd}]"),
        ("(?P<n>a|b)(?<m>c)(?:d)(e)", r"(?:\x{61}|\x{62})(?:\x{63})(?:\x{64})(?:\x{65})"),
        ("a{2,3}?b*", r"\x{61}{2,3}?\x{62}*"),
        ("]}", r"\x{5D}\x{7D}"),
        ("[a&&b]", r"[\x{61}\x{26}\x{26}\x{62}]"),
    ],
)
def test_a_pattern_is_written_for_rust(pattern: str, written: str) -> None:
    assert rust_pattern(pattern) == written


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        ")",
        "a)",
        "[",
        "[]",
        "[^]",
        "*",
        "a**",
        "a{2,1}",
        "a{99999}",
        "{2}",
        "(?=a)",
        "(?i)a",
        r"\1",
        r"\bx",
        r"\q",
        r"\ud83d",
        "[z-a]",
        r"[a-\d]",
        "\\",
        "\ud800",
        "(" * 60 + ")" * 60,
        "a" * 3000,
    ],
)
def test_a_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(RefusedFormError, match="pattern"):
        rust_pattern(pattern)


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        ({}, {}),
        ({"type": "integer", "minimum": 1}, {"type": "integer", "minimum": 1, "maximum": 2**53}),
        ({"type": "number", "exclusiveMaximum": 1}, {"type": "number", "minimum": -(2**53), "exclusiveMaximum": 1}),
        ({"title": "x", "x-y": 1, "$id": "z", "uniqueItems": False}, {}),
        ({"required": ["a"], "minProperties": 1}, {"required": ["a"]}),
        ({"minProperties": 1}, {"minProperties": 1}),
        ({"patternProperties": {"a": True}}, {"patternProperties": {r"\x{61}": True}}),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}, "b": {"not": {}}}},
            {"$ref": "#/$defs/r0", "$defs": {"r0": {"items": {"$ref": "#/$defs/r0"}}}},
        ),
        (
            {"type": "object", "properties": {"a": {"$ref": "#"}}},
            {
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/r0"}},
                "$defs": {"r0": {"type": "object", "properties": {"a": {"$ref": "#/$defs/r0"}}}},
            },
        ),
        (  # what only an endless value satisfies is closed
            {
                "properties": {"a": {"$ref": "#/$defs/e"}},
                "$defs": {"e": {"type": "array", "items": {"$ref": "#/$defs/e"}, "minItems": 1}},
            },
            {"properties": {"a": False}, "$defs": {"r0": False}},
        ),
        (
            {"type": "array", "prefixItems": [{"type": "null"}, True], "minItems": 1},
            {"type": "array", "prefixItems": [{"type": "null"}, True], "minItems": 1},
        ),
    ],
)
def test_a_schema_is_rewritten(schema: dict[str, Any], written: dict[str, Any]) -> None:
    assert enforceable_schema(schema) == written


def test_a_format_and_a_pattern_both_count() -> None:
    keywords = [("format", "date"), ("pattern", "^2"), ("allOf", [{"maxLength": 9}])]
    for order in permutations(keywords):
        written = enforceable_schema(dict(order))
        assert written["pattern"] == r"^\x{32}"
        assert {"maxLength": 9} in written["allOf"]
        assert len(written["allOf"]) == 2


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/a/0/b", "$defs": {"a": [{"b": 1}]}},
        {"type": "string", "pattern": 1},
        {"items": {"oneOf": []}},
        {"allOf": [{"properties": {str(n): {} for n in range(400)}} for _ in range(10)]},
        {"multipleOf": 0.1 + 0.2},
        {"multipleOf": 9e-06},  # llguidance's own arithmetic makes something else of it
        {"patternProperties": {"a": {}, r"\x61": {}}},
        {"const": {"a": [float("nan")]}},
    ],
)
def test_a_schema_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(RefusedFormError):
        enforceable_schema(schema)


@pytest.mark.parametrize(
    ("grammar", "lark"),
    [
        ('root ::= "a\\n" [^b-d.] .', 'start: T0\nT0: "a\\n" /[^\\x{62}-\\x{64}\\x{2E}-\\x{2E}]/ /(?s:.)/\n'),
        ('root ::= "a"{0} "b"{2} "c"{1,} ""', 'start: T0\nT0: "b"{2,2} "c"+ ""\n'),
        ('root ::= ("a" root)? | "b"', 'start: T0\nT0: ("a")* ("" | "b")\n'),
        ('root ::= "(" root ")" | [0-9] "x" | "y"', None),
        ('root ::= pair "" pair\npair ::= "(" pair? ")"', None),
        ('root ::= "[" "{" (root "," | "x")? "" "]"', None),
    ],
)
def test_a_grammar_is_written_in_lark(grammar: str, lark: str | None) -> None:
    written = gbnf_to_lark(grammar)
    assert written == lark or lark is None
    assert re.match(r"start: [Tr]0\n", written)


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "a" ::= "b"',
        "root",
        '"a"',
        "root root",
        'root ::= ("a" ::= )',
        "root ::= [a",
        'root ::= "\\UFFFFFFFF"',
        'root ::= ("a"\n',
        "root ::= (" * 3,
    ],
)
def test_a_grammar_is_refused(grammar: str) -> None:
    with pytest.raises(RefusedFormError, match="line"):
        gbnf_to_lark(grammar)


def test_what_rests_on_itself_is_not_proven() -> None:
    clauses = [("a", frozenset[str]()), ("b", frozenset({"a"})), ("c", frozenset({"c"})), ("d", frozenset({"b", "c"}))]
    assert provable(clauses) == {"a", "b"}


def test_a_reference_leads_through_lists_and_escapes() -> None:
    document = {"a/b": [{"c~d é": 1}]}
    assert resolve(document, "#") is document
    assert resolve(document, "#/a~1b/0/c~0d%20%C3%A9") == 1
    for lost in ("#/x", "#/a~1b/1", "#/a~1b/-1", "#a", "other#/a"):
        with pytest.raises(LookupError):
            resolve(document, lost)

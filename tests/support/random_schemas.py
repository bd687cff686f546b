"""JSON schemas drawn at random: tame ones that all have answers, and wild ones that may contradict themselves."""

from random import Random
from typing import Any

Schema = dict[str, Any]

_NAMES = ("name", "age", "größe", 'a "quoted" one', "tags")
_PATTERNS = (r"^[a-z]{2,5}$", r"^\d{3}-\d{4}$", r"^(foo|ba[rz])+$", r"^\w+@\w+\.com$", r"[^\W_]{2}", r"^\S+ \S+$", "x")
_FORMATS = ("date", "time", "date-time", "hostname", "email", "ipv4", "ipv6", "uuid", "uri", "duration")
_VALUES: tuple[Any, ...] = (
    1,
    2.5,
    "a",
    "b c",
    "日本",
    'x\n"\\é',
    None,
    True,
    False,
    [],
    {},
    ["x", [2]],
    {"k": {"l": 1}},
    -3,
    0,
    "",
)


def tame_schema(random: Random, depth: int = 0) -> Schema:
    """Something satisfies it, and is not very long."""
    leaves = [_text, _pattern, _format, _integer, _number, _enum, _const, _flag]
    branches = [_object, _object, _object, _array, _array, _choice, _tuple] if depth < 3 else []
    return random.choice([*leaves, *branches] if depth else branches)(random, depth)


def wild_schema(random: Random) -> Schema:
    """Merges, references and bounds without a plan: some of them nothing satisfies, and some are not enforced."""
    names = ["p", "q", "r"]
    schema = _wild(random, 0, names)
    return {**schema, "$defs": {name: _wild(random, 1, names) for name in names}}


def _text(random: Random, _: int) -> Schema:
    least = random.randint(0, 4)
    return {"type": "string", "minLength": least, "maxLength": least + random.randint(0, 8)}


def _pattern(random: Random, _: int) -> Schema:
    return {"type": "string", "pattern": random.choice(_PATTERNS), "maxLength": 24}


def _format(random: Random, _: int) -> Schema:
    return {"type": "string", "format": random.choice(_FORMATS)}


def _integer(random: Random, _: int) -> Schema:
    least = random.randint(-1000, 1000)
    bounds = random.choice([{}, {"minimum": least}, {"minimum": least, "exclusiveMaximum": least + 100}])
    return {"type": "integer", **bounds, **random.choice([{}, {"multipleOf": random.choice([2, 5, 7])}])}


def _number(random: Random, _: int) -> Schema:
    least = random.randint(-4000, 4000) / 4
    return {
        "type": "number",
        "exclusiveMinimum": least,
        "maximum": least + 50,
        **random.choice([{}, {"multipleOf": 0.25}]),
    }


def _enum(random: Random, _: int) -> Schema:
    return {"enum": random.sample(_VALUES, random.randint(1, 4))}


def _const(random: Random, _: int) -> Schema:
    return {"const": random.choice(_VALUES)}


def _flag(random: Random, _: int) -> Schema:
    return {"type": random.choice(["boolean", "null", ["boolean", "null"]])}


def _object(random: Random, depth: int) -> Schema:
    names = random.sample(_NAMES, random.randint(1, 4))
    return {
        "type": "object",
        "properties": {name: tame_schema(random, depth + 1) for name in names},
        "required": [name for name in names if random.random() < 0.7],
        "additionalProperties": False,
    }


def _array(random: Random, depth: int) -> Schema:
    least = random.randint(0, 2)
    return {
        "type": "array",
        "items": tame_schema(random, depth + 1),
        "minItems": least,
        "maxItems": least + random.randint(0, 2),
    }


def _tuple(random: Random, depth: int) -> Schema:
    return {
        "type": "array",
        "prefixItems": [tame_schema(random, depth + 1) for _ in range(random.randint(1, 3))],
        "items": False,
    }


def _choice(random: Random, depth: int) -> Schema:
    return {"anyOf": [tame_schema(random, depth + 1) for _ in range(random.randint(1, 3))]}


def _wild(random: Random, depth: int, names: list[str]) -> Schema:
    kinds = [_merge, _siblings, _map, _patterned, _combined] if depth < 3 else []
    kind = random.choice([*kinds, _reference, None, None])
    return tame_schema(random, depth + 1) if kind is None else kind(random, depth, names)


def _reference(random: Random, _: int, names: list[str]) -> Schema:
    beside: Schema = random.choice([{}, {}, {"minLength": 1}, {"type": ["object", "string"]}])
    return {"$ref": f"#/$defs/{random.choice(names)}", **beside}


def _combined(random: Random, depth: int, names: list[str]) -> Schema:
    branches = [_wild(random, depth + 1, names) for _ in range(random.randint(1, 3))]
    return {random.choice(["anyOf", "allOf", "oneOf"]): branches}


def _merge(random: Random, depth: int, names: list[str]) -> Schema:
    def part() -> Schema:
        rest: Schema = random.choice(
            [{}, {"additionalProperties": _wild(random, depth + 1, names)}, {"maxProperties": 3}]
        )
        properties = {name: _wild(random, depth + 1, names) for name in random.sample(_NAMES, 2)}
        return {"type": "object", "properties": properties, "required": random.sample(_NAMES, 1), **rest}

    return {**part(), random.choice(["anyOf", "allOf", "oneOf"]): [part(), part()]}


def _siblings(random: Random, depth: int, names: list[str]) -> Schema:
    keywords: list[tuple[str, Any]] = [
        ("type", ["object", "string", "integer"]),
        ("properties", {name: _wild(random, depth + 1, names) for name in _NAMES[:2]}),
        ("required", ["name"]),
        ("additionalProperties", random.choice([False, {"type": "string"}])),
        ("anyOf", [_wild(random, depth + 1, names) for _ in range(2)]),
        ("minLength", 2),
        ("maximum", 100),
    ]
    return dict(random.sample(keywords, 5))


def _map(random: Random, depth: int, names: list[str]) -> Schema:
    bounds: Schema = random.choice([{}, {"minProperties": 1}, {"maxProperties": 2}])
    return {"type": "object", "additionalProperties": _wild(random, depth + 1, names), **bounds}


def _patterned(random: Random, depth: int, names: list[str]) -> Schema:
    return {
        "type": "object",
        "patternProperties": {"^x": _wild(random, depth + 1, names), r"^[yz]\d$": _wild(random, depth + 1, names)},
        "properties": {"xa": _wild(random, depth + 1, names), "q": _wild(random, depth + 1, names)},
        "required": random.sample(["xa", "xb", "q", "y1"], 2),
        "additionalProperties": random.choice([False, True, {"type": "integer"}]),
    }

"""Which JSON schemas are enforced, and those in the exact form that llguidance is to enforce.

Pure, without recursion, in time bounded by limits on size and nesting. Annotations are dropped and what is not known
to be enforced is refused by name: no keyword is silently ignored. The dialect is Draft 2020-12; an older one is read
as this one, which never allows more.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from decimal import Decimal
from typing import Any

from llm_worker_rbee.domain import json_schema_values as values
from llm_worker_rbee.domain.horn import provable
from llm_worker_rbee.domain.json_pointer import resolve
from llm_worker_rbee.domain.json_schema_keywords import WRITERS, is_annotation, written_pattern
from llm_worker_rbee.domain.json_size import check_size
from llm_worker_rbee.domain.refused_form import RefusedFormError

MAX_SCHEMAS = 3_000
MAX_TOTAL_NESTING = 400  # llguidance follows references on the stack, and overruns it at some thousands
MAX_BRANCHES = {
    "allOf": 100,
    "anyOf": 500,
    "oneOf": 100,
    "prefixItems": 500,
    "properties": 500,
    "patternProperties": 20,
}
_SHOWN_KEYS = 10
_SHOWN_CHARS = 60
_NOTHING = False  # the schema that nothing satisfies
Put = Callable[[Any], None]


def enforceable_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema as llguidance is to read it, references as `#/$defs/r0` and so on.

    Raises:
        RefusedFormError: it is no schema, too large, asks what cannot be enforced, or nothing can satisfy it.
    """
    check_size(schema)
    return _Walk(schema).result()


class _Node:
    """One schema, where its rewritten form goes, and what must be satisfiable for it to be."""

    def __init__(self, source: Any, put: Put, part: str, nesting: int) -> None:
        self.source = source
        self.put = put
        self.part = part
        self.nesting = nesting
        self.out: dict[str, Any] = {}
        self.needs: set[Hashable] = set()
        self.properties: dict[str, _Node] = {}
        self.prefix: list[_Node] = []
        self.rest: _Node | None = None


class _Walk:
    """Visits every schema that the root reaches, once."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._todo: list[_Node] = []
        self._nodes: list[_Node] = []
        self._targets: dict[int, _Node] = {}
        self._definitions: dict[str, Any] = {}
        self._nesting: defaultdict[str, int] = defaultdict(int)
        self._unsupported: set[str] = set()
        self._clauses: list[tuple[Hashable, frozenset[Hashable]]] = []
        self._same_value: list[tuple[_Node, _Node]] = []
        self._applicators: dict[str, Callable[[_Node, str, Any], None]] = {
            "$ref": self._reference,
            "allOf": self._all,
            "anyOf": self._any,
            "oneOf": self._any,
            "items": self._one,
            "additionalProperties": self._one,
            "prefixItems": self._list,
            "properties": self._map,
            "patternProperties": self._map,
        }

    def result(self) -> dict[str, Any]:
        root = self._add(self._root, lambda _: None, part="", nesting=1)
        while self._todo:
            self._visit(self._todo.pop())
        if self._unsupported:
            keys = tuple(sorted(self._unsupported)[:_SHOWN_KEYS])
            raise RefusedFormError(f"cannot be enforced: {', '.join(keys)}", keys)
        self._refuse_circles()
        self._check_divisors()
        self._close_dead_ends(root)
        return {**root.out, "$defs": self._definitions} if self._definitions else root.out

    def _add(self, source: Any, put: Put, part: str, nesting: int) -> _Node:
        node = _Node(source, put, part, nesting)
        self._todo.append(node)
        self._nodes.append(node)
        if len(self._nodes) > MAX_SCHEMAS:
            raise RefusedFormError(f"has more than {MAX_SCHEMAS} schemas in it")
        if nesting > self._nesting[part]:
            self._nesting[part] = nesting
            if sum(self._nesting.values()) > MAX_TOTAL_NESTING:
                raise RefusedFormError(f"is nested more than {MAX_TOTAL_NESTING} deep, references followed")
        return node

    def _visit(self, node: _Node) -> None:
        if isinstance(node.source, bool):
            node.put(node.source)
            self._clauses += [(node, frozenset())] if node.source else []
            return
        if not isinstance(node.source, Mapping):
            raise RefusedFormError("a schema in it is neither an object nor a boolean")
        for key, value in node.source.items():
            self._write(node, key, value)
        node.put(node.out)
        self._need_members(node)
        self._clauses.append((node, frozenset(node.needs)))

    def _write(self, node: _Node, key: str, value: Any) -> None:
        if key in WRITERS:
            WRITERS[key](node.out, key, value, node.source)
        elif key in self._applicators:
            self._applicators[key](node, key, value)
        elif not is_annotation(key) and not (key == "$id" and node.source is self._root):
            self._unsupported.add(key[:_SHOWN_CHARS])

    def _need_members(self, node: _Node) -> None:
        """What an object or an array cannot be without, where nothing else is allowed."""
        types, out = node.source.get("type"), node.out
        if types in ("object", ["object"]):
            node.needs.update(node.properties[name] for name in out.get("required", ()) if name in node.properties)
        if types in ("array", ["array"]):
            least = out.get("minItems", 0)
            node.needs.update(node.prefix[:least])
            if least > len(node.prefix) and node.rest is not None:
                node.needs.add(node.rest)

    def _close_dead_ends(self, root: _Node) -> None:
        """A schema that only an endless value satisfies becomes `false`: else the answer could enter it."""
        satisfiable = provable(self._clauses)
        if root not in satisfiable:
            raise RefusedFormError("nothing satisfies it: it needs itself, or something that is false")
        for node in self._nodes:
            if node not in satisfiable:
                node.put(_NOTHING)

    def _refuse_circles(self) -> None:
        """A schema that speaks of a value by way of itself has no meaning: validators run round it."""
        spoken_of: defaultdict[_Node, set[_Node]] = defaultdict(set)
        for one, other in self._same_value:
            spoken_of[one].add(other)
        straight = provable((node, frozenset(spoken_of[node])) for node in self._nodes)
        if len(straight) < len(self._nodes):
            raise RefusedFormError("$ref leads in a circle without going into a value", ("$ref",))

    def _check_divisors(self) -> None:
        """Those of schemas that speak of the same value meet in one number."""
        leader: dict[_Node, _Node] = {}

        def lead(node: _Node) -> _Node:
            while (above := leader.get(node, node)) is not node:
                leader[node] = leader.get(above, above)
                node = above
            return node

        for one, other in self._same_value:
            leader[lead(one)] = lead(other)
        together: defaultdict[_Node, set[Decimal]] = defaultdict(set)
        for node in self._nodes:
            if "multipleOf" in node.out:
                together[lead(node)].add(values.divisor(node.out["multipleOf"]))
        for divisors in together.values():
            values.check_common_divisor(divisors)

    def _child(self, node: _Node, holder: Any, at: Any, source: Any) -> _Node:
        def put(out: Any) -> None:
            holder[at] = out

        return self._add(source, put, node.part, node.nesting + 1)

    def _reference(self, node: _Node, key: str, value: Any) -> None:
        if not isinstance(value, str):
            raise RefusedFormError("$ref must be a string", (key,))
        try:
            target = resolve(self._root, value)
        except LookupError as error:
            raise RefusedFormError(f"$ref {value[:_SHOWN_CHARS]!r}: {error}", (key,)) from None
        if id(target) not in self._targets:
            name = f"r{len(self._targets)}"
            self._definitions[name] = None

            def put(out: Any) -> None:
                self._definitions[name] = out

            self._targets[id(target)] = self._add(target, put, part=name, nesting=1)
        found = self._targets[id(target)]
        node.out[key] = f"#/$defs/{found.part}"
        node.needs.add(found)
        self._same_value.append((node, found))

    def _all(self, node: _Node, key: str, value: Any) -> None:
        children = self._branches(node, key, value)
        node.needs.update(children)
        self._same_value += [(node, child) for child in children]

    def _any(self, node: _Node, key: str, value: Any) -> None:
        children = self._branches(node, key, value)
        one = (node, key)
        node.needs.add(one)
        self._clauses += [(one, frozenset({child})) for child in children]
        self._same_value += [(node, child) for child in children]

    def _branches(self, node: _Node, key: str, value: Any) -> list[_Node]:
        if not isinstance(value, list) or not 0 < len(value) <= MAX_BRANCHES[key]:
            raise RefusedFormError(f"{key} must be a list of 1 to {MAX_BRANCHES[key]} schemas", (key,))
        written = node.out.setdefault(key, [])
        first = len(written)
        written += [None] * len(value)
        return [self._child(node, written, first + at, source) for at, source in enumerate(value)]

    def _list(self, node: _Node, key: str, value: Any) -> None:
        node.prefix = self._branches(node, key, value)

    def _one(self, node: _Node, key: str, value: Any) -> None:
        if not isinstance(value, bool | Mapping):
            raise RefusedFormError(f"{key} must be a schema", (key,))
        node.out[key] = None
        child = self._child(node, node.out, key, value)
        if key == "items":
            node.rest = child

    def _map(self, node: _Node, key: str, value: Any) -> None:
        if not isinstance(value, Mapping) or len(value) > MAX_BRANCHES[key]:
            raise RefusedFormError(f"{key} must hold at most {MAX_BRANCHES[key]} schemas by name", (key,))
        written = node.out[key] = dict[str, Any]()
        for name, source in value.items():
            values.check_text(key, name)
            written_name = written_pattern(key, name) if key == "patternProperties" else name
            if written_name in written:
                raise RefusedFormError("two names in patternProperties are one pattern", (key,))
            written[written_name] = None
            child = self._child(node, written, written_name, source)
            if key == "properties":
                node.properties[name] = child

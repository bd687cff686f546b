"""A parsed chat template, rewritten so that the meter sees what Jinja's sandbox leaves to Python.

That is: the template's own text, `~`, slices, literals with variables in them, and every turn of a loop. What no chat
template needs, and what would escape the meter, is refused here, before anything of it runs.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.exceptions import TemplateAssertionError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer
from typing_extensions import override

_MAX_CONST_BITS = 64


class Generation(Extension):
    """`{% generation %}`, which marks what a model is trained on: nothing here."""

    tags = {"generation"}  # noqa: RUF012 - as in Jinja

    @override
    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def watched(tree: nodes.Template) -> nodes.Template:
    """`tree` under the meter.

    Raises:
        TemplateAssertionError: it uses what is refused.
    """
    rewritten: nodes.Template = _Rewriter().visit(tree)
    return rewritten


class _Rewriter(NodeTransformer):
    @override
    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        self.generic_visit(node)
        rewrite = _REWRITES.get(type(node))
        return rewrite(node) if rewrite is not None else node


def _text(node: nodes.TemplateData) -> nodes.Node:
    return nodes.Const(node.data, lineno=node.lineno)  # printed as any other value


def _constant(node: nodes.Const) -> nodes.Node:
    value = node.value
    if (isinstance(value, int) and value.bit_length() > _MAX_CONST_BITS) or value == math.inf:
        _fail(node, "a number is too large")
    return node


def _concatenation(node: nodes.Concat) -> nodes.Node:
    return _filter("_concat", node.nodes[0], node.nodes[1:])


def _item(node: nodes.Getitem) -> nodes.Node:
    if not isinstance(node.arg, nodes.Slice):
        return node
    parts = (node.arg.start, node.arg.stop, node.arg.step)
    return _filter("_cut", node.node, [part if part is not None else _nothing(node) for part in parts])


def _sequence(node: nodes.List | nodes.Tuple) -> nodes.Node:
    constant = all(isinstance(item, nodes.Const) for item in node.items)
    assigned = isinstance(node, nodes.Tuple) and node.ctx != "load"
    return node if constant or assigned else _filter("_keep", node, [])


def _dictionary(node: nodes.Dict) -> nodes.Node:
    return _filter("_keep", node, [])


def _loop(node: nodes.For) -> nodes.Node:
    tick = nodes.ExprStmt(_filter("_tick", _nothing(node), []), lineno=node.lineno)
    node.body.insert(0, tick)
    return node


def _macro(node: nodes.Macro | nodes.CallBlock) -> nodes.Node:
    # these are a tuple and a dictionary that the meter never sees
    if any(name.name in {"varargs", "kwargs"} for name in node.find_all(nodes.Name)):
        _fail(node, "a macro uses varargs or kwargs")
    return node


def _refused(node: nodes.Node) -> NoReturn:
    _fail(node, f"it uses {type(node).__name__}")


_REWRITES: Mapping[type[nodes.Node], Callable[[Any], nodes.Node]] = MappingProxyType(
    {
        nodes.TemplateData: _text,
        nodes.Const: _constant,
        nodes.Concat: _concatenation,
        nodes.Getitem: _item,
        nodes.List: _sequence,
        nodes.Tuple: _sequence,
        nodes.Dict: _dictionary,
        nodes.For: _loop,
        nodes.Macro: _macro,
        nodes.CallBlock: _macro,
        nodes.Include: _refused,
        nodes.Import: _refused,
        nodes.FromImport: _refused,
        nodes.Extends: _refused,
        nodes.EvalContextModifier: _refused,
        nodes.ScopedEvalContextModifier: _refused,
    }
)


def _nothing(node: nodes.Node) -> nodes.Const:
    return nodes.Const(None, lineno=node.lineno)


def _filter(name: str, node: nodes.Expr, args: list[nodes.Expr]) -> nodes.Filter:
    return nodes.Filter(node, name, args, [], None, None, lineno=node.lineno)


def _fail(node: nodes.Node, why: str) -> NoReturn:
    raise TemplateAssertionError(why, node.lineno)

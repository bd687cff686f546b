"""Compiles a chat template and renders it, in Jinja's immutable sandbox under a meter.

A template comes with a model file: it can loop, repeat and nest, but not reach Python, make more than
`domain.render_limits` allows, or go on for longer than its meter's clock says. Nothing is computed at compile time.
The time is kept by the rendering itself: every loop's turn, every call, every value that is made or printed asks the
clock, and what happens between two of them is short because values are bounded. So a rendering ends by an exception
that it raises itself, and needs no other thread to throw one into it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

from jinja2 import Template, meta, nodes
from jinja2.exceptions import TemplateError, TemplateSyntaxError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import pass_context
from typing_extensions import override

from llm_worker_rbee.domain.render_limits import Meter
from llm_worker_rbee.engine.template_filters import FILTERS, GLOBALS, TESTS
from llm_worker_rbee.engine.template_tree import Generation, watched
from llm_worker_rbee.engine.template_values import BINARY, BoundedFormatter, methods_of, operate

# several times the longest that is in use; compiling it holds the interpreter for about a second
MAX_SOURCE = 128 * 1024

# what Python's own operators raise for a template that does not fit its values
RENDER_ERRORS = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
COMPILE_ERRORS = (*RENDER_ERRORS, SyntaxError)


@dataclass(frozen=True)
class Program:
    """A compiled template. `render` may be called from any thread."""

    takes_tools: bool
    _code: CodeType

    def render(self, meter: Meter, variables: Mapping[str, Any]) -> str:
        """The template with `variables`, which went through `meter`.

        Raises:
            TooMuchError: it went beyond a limit.
            RENDER_ERRORS: it refuses them.
        """
        environment = _Sandbox(meter)
        template = Template.from_code(environment, self._code, environment.make_globals(None))
        text: str = meter.keep("".join(template.root_render_func(template.new_context(dict(variables)))))
        return text


def compile_template(source: str) -> Program:
    """Compile `source`.

    Raises:
        COMPILE_ERRORS: it is no template, or one that does what no chat template needs.
    """
    if len(source) > MAX_SOURCE:
        raise TemplateError(f"it has more than {MAX_SOURCE} characters")
    environment = _Sandbox(Meter(lambda: 0.0, 1.0))
    tree = environment.parse(source)
    takes_tools = "tools" in meta.find_undeclared_variables(tree)
    return Program(takes_tools, environment.compile(tree))


def reason(error: BaseException) -> str:
    """What an error of a template says, in one line."""
    if isinstance(error, TemplateSyntaxError):
        return f"{error.message} (line {error.lineno})"
    return str(error) or type(error).__name__


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's environment for one rendering."""

    intercepted_binops = frozenset(BINARY)

    def __init__(self, meter: Meter) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", Generation],
            optimized=False,
            finalize=_printed,
            cache_size=0,
        )
        self.meter = meter
        self.filters = dict(FILTERS)
        self.tests = dict(TESTS)
        self.globals = dict(GLOBALS)

    @override
    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = watched(super()._parse(source, name, filename))
        return tree.set_environment(self)  # type: ignore[return-value]

    @override
    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.meter.tick()
        return operate(self.meter, operator, left, right)

    @override
    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.meter.tick()
        made = super().call(context, obj, *args, **kwargs)
        if isinstance(made, str):  # of a macro: joined from what was printed in it
            self.meter.room(len(made))
        return made

    @override
    def getitem(self, obj: Any, argument: Any) -> Any:
        self.meter.tick()
        try:
            return obj[argument]
        except (AttributeError, TypeError, LookupError):
            return self._attribute(obj, argument) if isinstance(argument, str) else self._missing(obj, argument)

    @override
    def getattr(self, obj: Any, attribute: str) -> Any:
        self.meter.tick()
        return self._attribute(obj, attribute)

    def _attribute(self, obj: Any, name: str) -> Any:
        methods = methods_of(obj)
        if methods is None:
            return super().getattr(obj, name)
        if name in methods:
            return _bound(methods[name], self.meter, obj)
        if name == "format" and isinstance(obj, str):
            return _bound_format(self, obj)
        if isinstance(obj, dict) and name in obj:
            return obj[name]
        return self._missing(obj, name)

    def _missing(self, obj: Any, name: Any) -> Any:
        for kind in (list, tuple, dict):  # by the name that a template knows
            if isinstance(obj, kind):
                return self.undefined(f"a {kind.__name__} has no {name!r}", name=name)
        return self.undefined(obj=obj, name=name)


@pass_context
def _printed(context: Context, value: Any) -> str:
    """Every text that is printed, the template's own too, passes here."""
    meter: Meter = context.environment.meter  # type: ignore[attr-defined]
    meter.tick()
    text = meter.text(value)
    meter.printed(len(text))
    return text


def _bound(method: Callable[..., Any], meter: Meter, value: Any) -> Callable[..., Any]:
    # a closure: what a template can see of a partial would lead it to the meter
    return lambda *args, **kwargs: method(meter, value, *args, **kwargs)


def _bound_format(environment: _Sandbox, text: str) -> Callable[..., Any]:
    return lambda *args, **kwargs: environment.meter.keep(
        BoundedFormatter(environment.meter, environment).vformat(text, args, kwargs)
    )

"""Chat templates that somebody ships in a model file to take a worker's time, memory, interpreter, or more.

They get one message and `x`, a short text of the user. `BIG` makes texts of 2 MiB, `LONG` a list of 100,000.
"""

from collections.abc import Callable

BIG = (
    "{% set ns=namespace(a='a', b='b') %}{% for i in range(21) %}"
    "{% set ns.a = ns.a ~ ns.a %}{% set ns.b = ns.b ~ ns.b %}{% endfor %}"
)
LONG = "{% set l = range(100000)|list %}"


def _laughs(start: str, step: Callable[[str], str]) -> str:
    """`ns.a` and `ns.b`, equal trees of more leaves than a machine can count, made in 40 steps."""
    steps = "".join(f"{{% set ns.{name} = {step(f'ns.{name}')} %}}" for name in "ab")
    return f"{{% set ns=namespace(a={start}, b={start}) %}}{{% for i in range(40) %}}{steps}{{% endfor %}}"


LISTS = _laughs("[0, x]", lambda tree: f"[{tree}, {tree}, {tree}]")
TUPLES = _laughs("(0, x)", lambda tree: f"({tree}, {tree}, {tree})")
DICTS = _laughs("[0, x]", lambda tree: f"{{'a': {tree}, 'b': {tree}}}")
CALLED_DICTS = _laughs("[0, x]", lambda tree: f"dict(a={tree}, b={tree})")

# it must be refused: a result would be as large as it looks, or something that no template may have
REFUSED = {
    "a text repeated": "{{ x * 3000000000 }}",
    "a constant repeated": "{{ 'a' * 3000000000 }}",
    "a condition repeated": "{% if 'a' * 999999999 %}{% endif %}",
    "a list repeated": "{{ ([x] * 300000000)|length }}",
    "a tuple repeated": "{{ ((x,) * 300000000)|length }}",
    "doubled": BIG + "{% for i in range(20) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
    "added": BIG + "{% for i in range(9) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
    "lists added": "{% set ns=namespace(a=[x]) %}{% for i in range(40) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
    "powers of powers": "{{ 9**9**9**9**9 }}",
    "squares": "{% set ns=namespace(a=99) %}{% for i in range(99) %}{% set ns.a = ns.a*ns.a %}{% endfor %}",
    "a constant of many digits": "{{ 0x" + "f" * 9999 + " % 7 }}",
    "infinity": "{{ 1e999999999 }}",
    "a wide %": "{{ '%999999999d' % 1 }}",
    "a precise %": "{{ '%.999999999f' % 1 }}",
    "a % as wide as a value": "{{ '%*d' % (999999999, 1) }}",
    "a wide % by name": "{{ '%(a(b)c)999999999d' % {'a(b)c': 1} }}",
    "many %": BIG + "{{ ('%s' * 99999) % ns.a }}",
    "the same by name": BIG + "{{ ('%(a)s' * 999) % {'a': ns.a} }}",
    "a wide format filter": "{{ '%999999999d'|format(1) }}",
    "a wide format": "{{ '{:999999999}'.format(1) }}",
    "a format as wide as a value": "{{ '{:{}}'.format(1, 999999999) }}",
    "a wide format in other digits": "{{ '{:٩٩٩٩٩٩٩٩٩}'.format(1) }}",
    "many fields": BIG + "{{ ('{0}' * 9999).format(ns.a) }}",
    "format_map": "{{ '{a}'.format_map({'a': 1}) }}",
    "center": "{{ x|center(999999999) }}",
    "center in a block": "{% filter center(999999999) %}a{% endfilter %}",
    "ljust": "{{ x.ljust(10**9) }}",
    "zfill": "{{ x.zfill(999999999) }}",
    "expandtabs": "{{ '\t'.expandtabs(999999999) }}",
    "indent": "{{ x|indent(999999999, true) }}",
    "indent many lines": BIG + "{{ ns.a|replace('a', '\n')|indent(200) }}",
    "replace": BIG + "{{ ns.a|replace('a', ns.b) }}",
    "replace nothing": BIG + "{{ ns.a.replace('', 'xxxxxxx') }}",
    "join": LONG + BIG + "{{ l|join(ns.a) }}",
    "join as a method": LONG + BIG + "{{ ns.a.join(l|map('string')) }}",
    "batch": "{{ [x]|batch(999999999, x)|list }}",
    "slice": "{{ [x]|slice(999999999)|list }}",
    "batches of batches": LONG + "{{ l|batch(1)|batch(1)|batch(99999, l)|list }}",
    "a range": "{{ range(999999999)|list }}",
    "laughs printed": LISTS + "{{ ns.a }}",
    "laughs compared": LISTS + "{{ ns.a == ns.b }}",
    "laughs as JSON": LISTS + "{{ ns.a|tojson }}",
    "laughs raised": LISTS + "{{ raise_exception(ns.a) }}",
    "laughs of dictionaries": DICTS + "{{ ns.a == ns.b }}",
    "laughs of called dictionaries": CALLED_DICTS + "{{ ns.a == ns.b }}",
    "laughs of tuples, hashed": TUPLES + "{{ {ns.a: 1} }}",
    "laughs by varargs": "{% macro f(n) %}{{ f(n + 1, varargs, varargs) }}{% endmacro %}{{ f(1) }}",
    "deep": "{% set ns=namespace(a=[]) %}{% for i in range(99999) %}{% set ns.a = [ns.a] %}{% endfor %}{{ ns.a }}",
    "a namespace in itself": "{% set ns=namespace() %}{% set ns.a = ns %}{{ ns|tojson }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "recursion that holds texts": BIG
    + "{% macro f(n) %}{% set y = ns.a[9:] ~ n %}{{ f(n + 1) }}{{ y }}{% endmacro %}{{ f(1) }}",
    "recursion without end": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}"
    ),
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops that call nothing": "{% set r = range(99999) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}",
    "loops with a condition": "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "a block in a block": "".join(
        f"{{% block b{i} %}}{{{{ self.b{i + 1}() }}}}{{{{ self.b{i + 1}() }}}}{{% endblock %}}" for i in range(60)
    )
    + "{% block b60 %}{% endblock %}",
    "text into a variable": "{% set v %}{% for i in range(99999) %}" + "d" * 60_000 + "{% endfor %}{% endset %}",
    "text into a macro": "{% macro f() %}{% for i in range(99999) %}"
    + "d" * 999
    + "{% endfor %}{% endmacro %}{{ f() }}",
    "text out": "{% for i in range(99999) %}{{ 'a' * 99999 }}{% endfor %}",
    "sorted again and again": LONG + "{% for i in range(9999) %}{% set y = l|reverse|list|sort %}{% endfor %}",
    "compared again and again": LONG + "{% for i in range(99999) %}{% set y = l|max %}{% endfor %}",
    "made again and again": BIG + "{% for i in range(999) %}{% set y = ns.a.upper() %}{% endfor %}",
    "many variables": BIG + "".join(f"{{% set v{i} = ns.a[1:] %}}" for i in range(999)),
    "many lists": LONG + "".join(f"{{% set v{i} = l[:] %}}" for i in range(999)),
    "stripped of many": BIG + "{{ ns.a[9:].strip(ns.b[9:] ~ 'a') }}",
    "trimmed of many": BIG + "{{ ns.a|trim(ns.b[9:] ~ 'a') }}",
    "searched backwards": BIG + "{{ ns.a.rfind('b' ~ ns.a[:1000000]) }}",
    "split backwards": BIG + "{{ ns.a.rsplit('b' ~ ns.a[:1000000]) }}",
    "split": BIG + "{{ ns.a.split('a') }}",
    "split at spaces": BIG + "{{ ns.a[:1000000].replace('a', ' a').split() }}",
    "split into lines": BIG + "{{ ns.a.replace('a', '\r').splitlines() }}",
    "split into characters": BIG + "{{ ns.a|list }}",
    "upper case that grows": BIG + "{{ ns.a.replace('a', 'ΐ').upper() }}",
    "escaped": BIG + "{{ ns.a.replace('a', '&')|e }}",
    "escaped in JSON": BIG + "{{ ns.a.replace('a', '\x00')|tojson }}",
    "escaped in a list": BIG + "{{ [ns.a[:2000000].replace('a', '\U000e0001')]|string }}",
    "separators in JSON": LONG + BIG + "{{ l|tojson(separators=(ns.a, ns.a)) }}",
    "indented JSON": LONG + "{{ l|tojson(indent=999999999) }}",
    "JSON indented by a text": LONG + BIG + "{{ l|tojson(indent=ns.a) }}",
    "a sum of lists": LONG + "{{ [l, l, l]|sum(start=[]) }}",
    "digits": BIG + "{{ ns.a.replace('a', '9')|int }}",
    "hexadecimal digits": BIG + "{{ ns.a.replace('a', 'f')|int(base=16) % 7 }}",
    "digits of a float": BIG + "{{ ns.a.replace('a', '9')|float }}",
    "rounded": "{{ 1.5|round(999999999, 'ceil') }}",
    "bytes": "{{ (5).to_bytes(999999999, 'big') }}",
    "a long form for the time": BIG + "{{ strftime_now(ns.a) }}",
    "a function of Jinja's for long texts": "{{ lipsum(n=999999) }}",
    "another template": "{% include x %}",
    "another template's names": "{% import x as y %}",
    "another template's frame": "{% extends x %}",
    "a constant that is needed to compile": "{% autoescape 'a'|center(999999999) %}{% endautoescape %}",
    "deep parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep conditions": "{% if x %}" * 500 + "{% endif %}" * 500,
    "a long sum": "{{ " + "x + " * 20_000 + "x }}",
    "filters of filters": "{{ range(9)" + "|map('string')" * 900 + "|list }}",
    "a long source": "a" * 200_000,
    "a change to a message": "{{ messages[0].update({'role': 'x'}) }}",
    "a change to the messages": "{{ messages.append(1) }}",
    "bases of a class": "{{ ().__class__.__bases__ }}",
    "bases by a format": "{{ '{0.__class__.__mro__}'.format(x) }}",
    "globals of a function": "{{ raise_exception.__globals__['secrets'] }}",
    "a closure": "{{ x.upper.__closure__[0].cell_contents }}",
    "a context": "{{ self._TemplateReference__context.environment }}",
    "an environment": "{% macro f() %}{% endmacro %}{{ f._environment.meter }}",
    "an attribute by a filter": "{{ (x|attr('__class__')).__mro__ }}",
}

# it is harmless, and only its cost counts
BORNE = {
    "found at the end": BIG + "{{ ns.a.find(ns.a[:500000] ~ 'b' ~ ns.a[:500000]) }}",
    "contained": BIG + "{{ (ns.a[:90] ~ 'b' ~ ns.a[:90]) in ns.a }}",
    "counted": BIG + "{{ ns.a.count(ns.a[:1000] ~ 'b') }}",
    "title": BIG + "{{ ns.a|title|length }}",
    "sorted": BIG + "{{ ns.a[:100000]|list|sort|length }}",
    "JSON": LONG + "{{ l|tojson(indent=8)|length }}",
    "unique": LONG + "{{ l|unique|list|length }}",
    "a long name": "{{ " + "a" * 100_000 + " }}",
    "many expressions": "{{ x }}" * 8000,
    "a namespace in itself, printed": "{% set ns=namespace() %}{% set ns.a = [ns] %}{{ ns.a }}{{ ns }}",
}

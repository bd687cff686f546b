r"""A schema's regular expression in the dialect of llguidance (Rust's), meaning the same or less.

Pure and linear. JSON Schema's dialect is ECMA-262 and most validators use Python's: where those two differ, as in
`\s` and `\W`, what both match is allowed. What Rust would read in another way is written out or refused.
"""

import re

from llm_worker_rbee.domain.refused_form import RefusedFormError

MAX_CHARS = 2_000
MAX_NESTING = 50
MAX_REPEATS = 10_000

_TOKEN = re.compile(
    r"""(?P<repeat>(?:[*+?]|\{\d{1,9}(?:,\d{0,9})?\})\??)
      | (?P<open>\((?:\?:|\?P?<[A-Za-z_]\w*>)?(?!\?))
      | (?P<close>\))
      | (?P<mark>[|^$])
      | (?P<set>\[(?:\^|(?!\^))(?:[^\]\\]|\\.)+\])
      | (?P<escape>\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|c[A-Za-z]|[pP]\{[A-Za-z]+\}|[^xucpP]))
      | (?P<char>[^\\()\[{*+?|^$])""",
    re.VERBOSE | re.DOTALL,
)
_MEMBER = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|c[A-Za-z]|[pP]\{[A-Za-z]+\}|[^xucpP])|[^\\]", re.DOTALL)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}
_SURROGATES = range(0xD800, 0xE000)
_BLANKS = r"\x{20}\x{9}-\x{D}"
_WORD = "0-9A-Za-z_"
# What ECMA-262 and Python both match, and what one of them matches.
_BOTH = {
    "d": "0-9",
    "w": _WORD,
    "s": _BLANKS,
    "D": r"\P{Nd}",
    "W": r"[^\p{Alphabetic}\p{M}\p{N}\p{Pc}\p{Join_Control}]",
    "S": r"[^\p{White_Space}\x{1C}-\x{1F}\x{FEFF}]",
}
_EITHER = {
    "d": r"\p{Nd}",
    "w": r"\p{Alphabetic}\p{M}\p{N}\p{Pc}\p{Join_Control}",
    "s": r"\p{White_Space}\x{1C}-\x{1F}\x{FEFF}",
    "D": "[^0-9]",
    "W": f"[^{_WORD}]",
    "S": f"[^{_BLANKS}]",
}
_ANY = r"[^\x{A}\x{D}\x{2028}\x{2029}]"


def rust_pattern(pattern: str) -> str:
    """The pattern rewritten.

    Raises:
        RefusedFormError: it is too large, no regular expression, or uses what cannot be enforced.
    """
    if len(pattern) > MAX_CHARS:
        raise RefusedFormError(f"the pattern has {len(pattern)} characters; at most {MAX_CHARS} are read")
    parts: list[str] = []
    depth, repeatable, at = 0, False, 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            raise _refusal(pattern[at:])
        kind, text = str(token.lastgroup), token.group()
        depth += {"open": 1, "close": -1}.get(kind, 0)
        if not 0 <= depth <= MAX_NESTING or (kind == "repeat" and not repeatable):
            raise _refusal(pattern[at:])
        parts.append(_rewritten(kind, text))
        repeatable = kind in {"close", "set", "escape", "char"}
        at = token.end()
    if depth:
        raise RefusedFormError("the pattern has a group that is not closed")
    return "".join(parts)


def _refusal(rest: str) -> RefusedFormError:
    return RefusedFormError(f"the pattern cannot be enforced from {rest[:20]!r} on")


def _rewritten(kind: str, text: str) -> str:
    if kind == "open":
        return "(?:"
    if kind == "set":
        return _set(text)
    if kind == "escape":
        return _member(text, _BOTH) if text[1] in "pP" else _escape(text)
    if kind == "char":
        return _ANY if text == "." else _literal(ord(text))
    if kind == "repeat":
        _check_repeat(text)
    return text


def _check_repeat(text: str) -> None:
    bounds = [int(number) for number in re.findall(r"\d+", text)]
    if bounds and (max(bounds) > MAX_REPEATS or bounds[0] > bounds[-1]):
        raise RefusedFormError(f"the pattern repeats {text}; at most {MAX_REPEATS} are possible")


def _escape(text: str) -> str:
    wide = _BOTH.get(text[1])
    if wide is None:
        return _literal(_code_point(text))
    return wide if wide.startswith(("[", "\\P")) else f"[{wide}]"


def _set(text: str) -> str:
    negated = text.startswith("[^")
    meanings = _EITHER if negated else _BOTH
    members = [match.group() for match in _MEMBER.finditer(text[2 if negated else 1 : -1])]
    parts: list[str] = []
    at = 0
    while at < len(members):
        if at + 2 < len(members) and members[at + 1] == "-":
            first, last = _code_point(members[at]), _code_point(members[at + 2])
            if first > last:
                raise _refusal(text)
            parts.append(f"{_literal(first)}-{_literal(last)}")
            at += 3
        else:
            parts.append(_member(members[at], meanings))
            at += 1
    return f"[{'^' if negated else ''}{''.join(parts)}]"


def _member(text: str, meanings: dict[str, str]) -> str:
    if text.startswith("\\") and text[1] in meanings:
        return meanings[text[1]]
    if text.startswith(("\\p", "\\P")):
        return text
    return _literal(8 if text == "\\b" else _code_point(text))


def _code_point(text: str) -> int:
    if not text.startswith("\\"):
        return ord(text)
    kind = text[1]
    if kind in _CONTROLS:
        return ord(_CONTROLS[kind])
    if kind in "xu":
        return int(f"0x{text[2:]}", 0)
    if kind == "c":
        return ord(text[2]) % 32
    if kind.isalnum():
        raise RefusedFormError(f"the pattern uses {text}, which cannot be enforced")
    return ord(kind)


def _literal(code_point: int) -> str:
    if code_point in _SURROGATES:
        raise RefusedFormError("the pattern holds half a surrogate pair")
    return f"\\x{{{code_point:X}}}"

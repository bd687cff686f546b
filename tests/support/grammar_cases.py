"""Grammars in GBNF: what their sentences are, and why some are refused."""

import pytest

JSON_GBNF = r"""
root   ::= object  # as it comes with llama.cpp
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""

# a grammar, and its sentences as a regular expression
SENTENCES = [
    pytest.param('root ::= "yes" | "no"', r"yes|no", id="choice"),
    pytest.param('root ::= "Größe: " [a-zéü]{2,5} ("." | "!")', r"Größe: [a-zéü]{2,5}[.!]", id="multi-byte text"),
    pytest.param('root ::= [日-本]{3} "→" .', r"[日-本]{3}→.", id="ranges of code points"),
    pytest.param('root ::= "a\\x41\\u00e9\\U0001F600" [^a-z\\n]{1,9} "\\n"', r"aAé😀[^a-z\n]{1,9}\n", id="escapes"),
    pytest.param("root ::= word (sep word)* [.]\nword ::= [a-z]+\nsep ::= [ ,]", r"[a-z]+([ ,][a-z]+)*\.", id="words"),
    pytest.param('root ::= "<" ws "x" ws ">"\nws ::= ([ \\t] ws)?', r"<[ \t]*x[ \t]*>", id="a tail that repeats"),
    pytest.param('root ::= \n  [0-9]{4} ( # a year\n "-" |\n "-")', r"\d{4}-", id="broken lines"),
]

# a grammar, and words of its refusal
REFUSED_GRAMMARS = [
    pytest.param(" \n# nothing\n", "no rule", id="empty"),
    pytest.param('root ::= "a', "cannot read", id="an open literal"),
    pytest.param("root ::= [a-", "cannot read", id="an open range"),
    pytest.param('root ::= ("a"', "not finished", id="an open group"),
    pytest.param('root ::= "a")', "without its", id="a closed group"),
    pytest.param('root ::= "\\q"', "escape", id="an unknown escape"),
    pytest.param('root ::= "\\uD800"', "no character", id="half a surrogate pair"),
    pytest.param("root ::= [z-a]", "backwards", id="a range backwards"),
    pytest.param("root ::= *", "nothing stands before", id="repeats nothing"),
    pytest.param('root ::= "a"{3,1}', "repeats", id="repeats backwards"),
    pytest.param('root ::= "a"{1,999999}', "repeats", id="repeats too often"),
    pytest.param('root = "a"', "cannot read", id="no GBNF"),
    pytest.param("start: /a/\n%llguidance {}", "cannot read", id="another notation"),
    pytest.param('start ::= "a"', "'root'", id="no root"),
    pytest.param("root ::= thing", "'thing'", id="an unknown rule"),
    pytest.param('root ::= "a"\nroot ::= "b"', "twice", id="a rule twice"),
    pytest.param('root ::= root "a" | "b"', "left recursion", id="left-recursive"),
    pytest.param('root ::= x? y\nx ::= "x"?\ny ::= x root | "y"', "left recursion", id="hidden left recursion"),
    pytest.param('root ::= "a" root', "finite", id="without end"),
    pytest.param('root ::= "a" | "b" loop\nloop ::= "c" loop', "finite", id="a branch without end"),
    pytest.param('root ::= ""', "the empty one", id="only the empty sentence"),
    pytest.param("root ::= []", "enforced", id="no character at all"),
    pytest.param("root ::= " + "(" * 30_000 + '"a"' + ")" * 30_000, "nested", id="nested 30,000 deep"),
    pytest.param("root ::= " + "(" * 100_000 + '"a"' + ")" * 100_000, "characters", id="nested 100,000 deep"),
    pytest.param(
        "\n".join(f"r{n} ::= r{n + 1}" for n in range(4000)) + '\nroot ::= r0\nr4000 ::= "a"',
        "deep",
        id="a long chain",
    ),
    pytest.param('root ::= "' + "a" * 1_000_000 + '"', "characters", id="a million characters"),
    pytest.param("root ::= <|user|>", "cannot read", id="a control token"),
]

"""The list of errors is complete, documented, and used."""

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_shared.errors import ERRORS_BY_CODE, BadPeerError, RbeeError, error_from_body

_ROOT = Path(__file__).parents[3]
_SOURCES = [path for path in (_ROOT / "src").rglob("*.py") if path.name != "errors.py"]
_ALL = sorted(ERRORS_BY_CODE.items())


def _subclasses(cls: type[RbeeError]) -> set[type[RbeeError]]:
    return {cls} | {each for child in cls.__subclasses__() for each in _subclasses(child)}


def test_every_code_is_one_classes() -> None:
    in_file = re.findall(r'^    code = "([A-Z_]+)"', (_ROOT / "src/rbee_shared/errors.py").read_text(), re.MULTILINE)
    assert len(in_file) == len(set(in_file))
    assert set(in_file) | {"INTERNAL"} == set(ERRORS_BY_CODE)


@pytest.mark.parametrize(("code", "cls"), _ALL)
def test_every_error_has_a_status_and_a_next_step(code: str, cls: type[RbeeError]) -> None:
    assert re.fullmatch(r"[A-Z][A-Z_]+", code)
    assert 400 <= cls.http_status < 600
    assert len(cls.default_hint) > 10
    assert cls.__doc__


def test_no_two_errors_give_the_same_advice() -> None:
    hints = [cls.default_hint for _, cls in _ALL]
    assert len(hints) == len(set(hints))


@pytest.mark.parametrize(("code", "cls"), _ALL)
def test_an_error_survives_the_wire(code: str, cls: type[RbeeError]) -> None:
    body = cls("why", hint="do this", details={"port": 1}, source="hive at mac").body()
    again = error_from_body(body)
    assert type(again) is cls
    assert again.body() == body
    assert again.code == code


def test_an_unknown_code_is_named() -> None:
    error = error_from_body({"code": "FROM_THE_FUTURE", "message": "new", "hint": "update"})
    assert isinstance(error, BadPeerError)
    assert error.message == "FROM_THE_FUTURE: new"
    assert error.hint == "update"


@given(
    st.dictionaries(
        st.sampled_from(["code", "message", "hint", "details", "source"]),
        st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.dictionaries(st.text(), st.integers()),
    )
)
def test_whatever_a_peer_sends_becomes_an_error(body: dict[str, object]) -> None:
    error = error_from_body(body)
    assert isinstance(error.message, str)
    assert isinstance(error.hint, str)
    assert isinstance(error.details, dict)


def test_the_document_lists_every_code_and_no_other() -> None:
    text = (_ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([A-Z_]+)` \|", text, re.MULTILINE)
    assert sorted(documented) == sorted(ERRORS_BY_CODE)


def _names_used(tree: ast.AST) -> set[str]:
    """Names that are called, raised or handed on; being caught or annotated is not enough."""
    caught = {
        id(name)
        for handler in ast.walk(tree)
        if isinstance(handler, ast.ExceptHandler) and handler.type
        for name in ast.walk(handler.type)
    }
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in caught}


def test_every_error_is_used() -> None:
    used = {name for path in _SOURCES for name in _names_used(ast.parse(path.read_text(encoding="utf-8")))}
    unused = [code for code, cls in _ALL if not used & {each.__name__ for each in _subclasses(cls)}]
    assert unused == [], "documented, and never raised"

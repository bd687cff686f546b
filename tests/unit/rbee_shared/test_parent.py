"""What `--parent` names is read before anything is imported, and must be what the command line makes of it later."""

from contextlib import suppress
from typing import Annotated

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from rbee_shared.parent import Parent, parent_of


@pytest.mark.parametrize(
    ("arguments", "parent"),
    [
        ("", None),
        ("daemon --port 1", None),
        ("daemon --parent stdin", Parent.STDIN),
        ("daemon --parent=stdin --port 1", Parent.STDIN),
        ("--port 1 --parent ssh", Parent.SSH),
        ("--parent=ssh", Parent.SSH),
        ("--parent stdin --parent ssh", Parent.SSH),
        ("--parent=ssh --parent=stdin", Parent.STDIN),
        ("--parent", None),
        ("--parent=", None),
        ("--parent STDIN", None),
        ("--parent pipe", None),
        ("--parents stdin", None),
        ("--name --parented", None),
    ],
)
def test_who_holds_it(arguments: str, parent: Parent | None) -> None:
    assert parent_of(arguments.split()) is parent


_WORDS = st.sampled_from(
    ["--parent", "stdin", "ssh", "--parent=stdin", "--parent=ssh", "--port", "--port=7", "7", "--flag", "--parent="]
)


@given(st.lists(_WORDS, max_size=6))
def test_it_is_what_the_command_line_makes_of_it(arguments: list[str]) -> None:
    seen: list[Parent | None] = []

    def program(
        parent: Annotated[Parent | None, typer.Option()] = None,
        port: Annotated[int | None, typer.Option()] = None,
        flag: Annotated[bool, typer.Option("--flag")] = False,
    ) -> None:
        assert port in {None, 7}
        assert flag in {True, False}
        seen.append(parent)

    app = typer.Typer(add_completion=False)
    app.command()(program)
    with suppress(SystemExit):
        app(args=arguments, standalone_mode=True)

    assert seen in ([], [parent_of(arguments)])

"""Scripts rely on the table."""

from rbee_keeper.exit_codes import BY_CODE, exit_code
from rbee_shared.errors import ERRORS_BY_CODE, RbeeError


def test_every_error_has_an_exit_status() -> None:
    assert set(BY_CODE) == {*ERRORS_BY_CODE, RbeeError.code}


def test_what_fails_after_output_is_incomplete() -> None:
    assert {exit_code(code, answer_begun=True) for code in BY_CODE} == {6}


def test_a_code_of_a_newer_queen_is_a_failure() -> None:
    assert exit_code("NOT_INVENTED_YET", answer_begun=False) == 1

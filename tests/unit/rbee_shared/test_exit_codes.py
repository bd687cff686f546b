"""Every command line of rbee has the same table."""

from rbee_shared import exit_codes
from rbee_shared.errors import ERRORS_BY_CODE, RbeeError


def test_every_error_has_an_exit_status() -> None:
    assert set(exit_codes.BY_CODE) == {*ERRORS_BY_CODE, RbeeError.code}
    assert set(exit_codes.BY_CODE.values()) == {1, 2, 3, 4, 5}


def test_a_code_of_a_newer_peer_is_a_failure() -> None:
    assert exit_codes.of_error("NOT_INVENTED_YET") == 1


def test_signals_as_a_shell_has_them() -> None:
    assert [exit_codes.after_signal(number) for number in (1, 2, 15)] == [129, 130, 143]

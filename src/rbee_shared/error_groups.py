"""Errors that task groups have wrapped: what one of them is to be told."""

from typing import TypeVar

ErrorT = TypeVar("ErrorT", bound=BaseException)


def first_error(errors: BaseExceptionGroup[ErrorT]) -> ErrorT:
    """The first error of a group, however deep groups stand in it."""
    error = errors.exceptions[0]
    return first_error(error) if isinstance(error, BaseExceptionGroup) else error

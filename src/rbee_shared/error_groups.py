"""Errors that task groups have wrapped: what one of them is to be told."""

from typing import TypeVar

from rbee_shared.errors import RbeeError

ErrorT = TypeVar("ErrorT", bound=BaseException)


def first_error(errors: BaseExceptionGroup[ErrorT]) -> ErrorT:
    """The first error of a group, however deep groups stand in it."""
    error = errors.exceptions[0]
    return first_error(error) if isinstance(error, BaseExceptionGroup) else error


def sole_error(group: BaseExceptionGroup[BaseException]) -> RbeeError:
    """The error for the user in a group that task groups have made around it.

    Raises:
        BaseExceptionGroup: there is a defect in it, which must not be hidden.
    """
    errors, others = group.split(RbeeError)
    if errors is None or others is not None:
        raise group
    return first_error(errors)

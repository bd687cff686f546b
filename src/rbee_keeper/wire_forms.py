"""Orders made of a command's arguments, and answers read as what they must be."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from rbee_shared.contracts.base import Wire
from rbee_shared.contracts.faults import invalid_request
from rbee_shared.errors import BadPeerError

WireT = TypeVar("WireT", bound=Wire)


def order_of(kind: type[WireT], /, **arguments: object) -> WireT:
    """An order; an argument that is None was not given.

    Raises:
        InvalidRequestError: with every fault.
    """
    try:
        return kind.model_validate({name: value for name, value in arguments.items() if value is not None})
    except ValidationError as error:
        raise invalid_request(error) from None


def read_as(kind: type[WireT], answer: Mapping[str, Any], *, who: str) -> WireT:
    """An answer of `who`.

    Raises:
        BadPeerError: it is something else.
    """
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise BadPeerError(f"the answer of {who} is no {kind.__name__}: {where}: {fault['msg']}") from None


def fields_of(order: Wire) -> dict[str, Any]:
    """An order as it is sent: what was not given is left out, a null that was given is not."""
    return order.model_dump(mode="json", exclude_unset=True)

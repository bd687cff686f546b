"""A wire model's faults as one error: every wrong field is named at once."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from rbee_shared.errors import InvalidRequestError


def invalid_request(error: ValidationError) -> InvalidRequestError:
    """All faults of a request in one error."""
    return faults_as_error(error.errors(include_url=False, include_context=False, include_input=False))


def invalid_field(field: str, constraint: str, message: str) -> InvalidRequestError:
    """One fault that only the receiver of the request could find."""
    fault = {"field": field, "constraint": constraint, "message": message}
    return InvalidRequestError(f"{field}: {message}", details={"errors": [fault]})


def faults_as_error(found: Iterable[Mapping[str, Any]]) -> InvalidRequestError:
    """The same, for pydantic's faults as a list."""
    told = tuple(found)
    faults: list[dict[str, Any]] = [
        {
            "field": ".".join(str(part) for part in fault["loc"]) or "(body)",
            "constraint": fault["type"],
            "message": fault["msg"].removeprefix("Value error, "),
        }
        for fault in told
        if not _follows_from_another(fault, told)
    ]
    text = "; ".join(f"{fault['field']}: {fault['message']}" for fault in faults)
    return InvalidRequestError(text, details={"errors": faults})


def _follows_from_another(fault: Mapping[str, Any], told: Iterable[Mapping[str, Any]]) -> bool:
    """A list with a wrong item is also told to be too short, as if the item had not been sent."""
    where = tuple(fault["loc"])
    return fault["type"] == "too_short" and any(
        len(other["loc"]) > len(where) and tuple(other["loc"][: len(where)]) == where for other in told
    )

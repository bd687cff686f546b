"""A wire model's faults as one error: every wrong field is named at once."""

from typing import Any

from pydantic import ValidationError

from rbee_shared.errors import InvalidRequestError


def invalid_request(error: ValidationError) -> InvalidRequestError:
    """All faults of a request in one error."""
    faults: list[dict[str, Any]] = [
        {
            "field": ".".join(str(part) for part in fault["loc"]) or "(body)",
            "constraint": fault["type"],
            "message": fault["msg"].removeprefix("Value error, "),
        }
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    text = "; ".join(f"{fault['field']}: {fault['message']}" for fault in faults)
    return InvalidRequestError(text, details={"errors": faults})

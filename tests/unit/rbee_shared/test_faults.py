"""Every fault of a request is told once."""

import pytest
from pydantic import ValidationError

from rbee_shared.contracts.faults import invalid_request
from rbee_shared.contracts.tasks import TaskRequest


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        pytest.param(
            {"messages": [{"role": "narrator", "content": "x"}]}, ["messages.0.role"], id="not also too short"
        ),
        pytest.param({"messages": []}, ["messages"], id="too short"),
        pytest.param({"prompt": "x", "device": -1}, ["device.int", "device.str"], id="no device has that index"),
        pytest.param({"prompt": "x", "device": ""}, ["device.int", "device.str"], id="no device has no name"),
        pytest.param({"prompt": "x", "stop": ["", "y" * 257]}, ["stop.0", "stop.1"], id="each item"),
    ],
)
def test_faults(body: dict[str, object], fields: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        TaskRequest.model_validate(body)

    faults = invalid_request(caught.value).details["errors"]
    assert [fault["field"].replace("constrained-", "") for fault in faults] == fields
    assert all(fault["message"] and fault["constraint"] for fault in faults)

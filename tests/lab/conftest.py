"""Lab tests: three hosts with sshd and nothing else, made new for every test; and a Hub that they all reach."""

from collections.abc import Generator

import pytest
from tests.support.lab import Lab, running_lab, why_not_here
from tests.support.skips import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]


@pytest.fixture(scope="session", autouse=True)
def _lab_is_possible() -> None:
    reason = why_not_here()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def _running_lab() -> Generator[Lab]:
    with running_lab() as lab:
        yield lab


@pytest.fixture
def lab(_running_lab: Lab) -> Generator[Lab]:
    """New hosts; nobody is let in anywhere, and no host key is known. A test that fails shows their logs."""
    _running_lab.renew()
    yield _running_lab
    for host in _running_lab.hosts:
        print(host.told() if host.is_on else f"--- {host.name} is off")

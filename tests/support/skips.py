"""Where a skip would hide that something was not tested: under CI, as root, only a missing device excuses it.

A `conftest.py` has this done for the tests beside it by `from tests.support.skips import pytest_runtest_makereport`.
"""

import os
from collections.abc import Generator

import pytest

EXCUSES = ("needs a GPU", "needs a Mac")
"""What a skip's reason begins with where even a machine of CI, and root, may lack it."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not report.skipped or hasattr(report, "wasxfail") or "CI" not in os.environ or os.geteuid() != 0:
        return report
    reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else report.longreprtext
    if not reason.startswith(EXCUSES):
        report.outcome = "failed"
        report.longrepr = f"skipped under CI, as root: {reason}"
    return report

"""Lab tests: three hosts with sshd and nothing else, made new for every test; and a Hub that they all reach."""

from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from tests.support.lab import Lab, running_lab, why_not_here
from tests.support.lab_cluster import (
    CUDA_TWICE,
    METAL,
    Gone,
    install,
    name_hosts,
    put_installation,
    save_installation,
)
from tests.support.skips import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]

_LONGEST_S = 900
_GONE = "gone"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever installs on a bare account and waits for leases to end needs more time than the other tiers."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(_LONGEST_S))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Who was gone when, after each death."""
    reports = [each for kind in ("passed", "failed") for each in terminalreporter.stats.get(kind, [])]
    told = [(each.nodeid, value) for each in reports for name, value in each.user_properties if name == _GONE]
    if told:
        terminalreporter.section("who was gone when")
    for test, value in told:
        terminalreporter.write_line(f"{value}  {test.partition('::')[2]}")


@pytest.fixture
def gone(record_property: Callable[[str, object], None]) -> Gone:
    """Waits until programs are gone from a host, and reports how long that took."""
    return Gone(lambda text: record_property(_GONE, text))


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


@pytest.fixture(scope="session")
def _installation(_running_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rbee as its queen installs it on a bare account, with a worker build: made once."""
    _running_lab.renew()
    name_hosts(_running_lab)
    install(_running_lab, _running_lab.mac)
    archive = tmp_path_factory.mktemp("installation") / "rbee.tar"
    save_installation(_running_lab.mac, archive)
    return archive


@pytest.fixture
def cluster(_installation: Path, lab: Lab) -> Lab:
    """Three hosts that blep's SSH configuration names; rbee is on all of them, and nothing runs."""
    name_hosts(lab)
    for host, config in ((lab.mac, METAL), (lab.workstation, CUDA_TWICE)):
        put_installation(host, _installation)
        host.write("/root/.rbee/config.toml", config)
    return lab

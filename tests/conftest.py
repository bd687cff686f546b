"""For every test: anyio on asyncio, and a blocking call of ours inside an event loop is a failure.

A time-out per test and warnings as errors come from `[tool.pytest]` in pyproject.toml.
"""

import signal
from collections.abc import Generator

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

# how long a drawing takes is no property of our code: in a fresh clone the first one builds tables for over a second
settings.register_profile("rbee", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rbee")

_OURS = ["llm_worker_rbee", "queen_rbee", "rbee_hive", "rbee_keeper", "rbee_shared"]
# reads of /proc, a run file, a local log's end; a fork that must happen in the main thread (PDEATHSIG): below 5 ms each
_MAY_BLOCK = {
    "rbee_shared/handshake.py": {"from_here"},
    "rbee_shared/child_io.py": {"spawn"},
    "rbee_shared/child.py": {"last_words"},
    "rbee_shared/run_file.py": {"claimed_daemon"},
}

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # started with `&` by a shell: what these tests start would inherit that, and Ctrl+C would mean nothing to it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_blocking(request: pytest.FixtureRequest) -> Generator[None, None, None]:
    """Calls that come from our packages only: a test itself may read a file where it likes."""
    if request.node.get_closest_marker("allow_blocking"):
        yield
        return
    with blockbuster_ctx(_OURS) as guard:
        for function in guard.functions.values():
            for file, functions in _MAY_BLOCK.items():
                function.can_block_in(file, functions)
        yield

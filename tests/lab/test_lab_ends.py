"""Nothing of a lab outlives it: not a process, a mount, a network or a file, however its owner came to an end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.lab import Lab, running_lab
from tests.support.lab_disk import ROOT
from tests.support.lab_namespaces import tool
from tests.support.processes import alive, wait_gone

_RUNNER = "tests.support.programs.lab_runner"


def machine() -> dict[str, object]:
    """All of the machine that a lab could have touched."""
    namespaces = Path("/run/netns")
    return {
        "links": tool("ip", "-oneline", "link"),
        "mounts": Path("/proc/self/mounts").read_text(),
        "routes": tool("ip", "route"),
        "rules": tool("iptables", "--table", "raw", "--list-rules"),
        "named": sorted(namespaces.iterdir()) if namespaces.exists() else [],
        "host name": os.uname().nodename,
    }


@pytest.mark.parametrize(
    ("ending", "number", "status"),
    [
        pytest.param("leave", None, 0, id="left in order"),
        pytest.param("raise", None, 1, id="a test failed"),
        pytest.param("wait", signal.SIGINT, -signal.SIGINT, id="Ctrl+C"),
        pytest.param("wait", signal.SIGTERM, -signal.SIGTERM, id="terminated"),
        pytest.param("wait", signal.SIGKILL, -signal.SIGKILL, id="killed"),
    ],
)
def test_whoever_has_a_lab_leaves_nothing_of_it(
    tmp_path: Path, ending: str, number: signal.Signals | None, status: int
) -> None:
    before = machine()
    argv = [sys.executable, "-m", _RUNNER, ending]
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(argv, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        pids = json.loads(runner.stdout.readline())["pids"]
        if number is not None:
            assert all(map(alive, pids))
            assert len(set(pids)) >= 5
            runner.send_signal(number)
        _, told = runner.communicate(timeout=60)

    assert runner.returncode == status, told.decode()
    wait_gone(pids, 10)
    assert list(tmp_path.iterdir()) == []
    assert machine() == before


def test_the_machine_does_not_notice_a_lab_that_runs(lab: Lab) -> None:
    before = machine()
    with running_lab(["blep", "mac"]) as second:
        assert machine() == before
        assert second.mac.run(["hostname"]).stdout == "mac\n"
        lab.mac.write("/root/mine", "x")
        assert "/root/mine" not in second.mac.files()
        assert second.open_ports(second.blep, second.mac) == {22}
    assert machine() == before
    assert lab.mac.run(["hostname"]).stdout == "mac\n"

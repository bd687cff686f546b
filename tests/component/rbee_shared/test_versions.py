"""Every program says its name and version."""

import subprocess
import sys
from pathlib import Path

import pytest

from rbee_shared.version import __version__


@pytest.mark.parametrize("program", ["rbee-keeper", "queen-rbee", "rbee-hive", "llm-worker-rbee"])
def test_version(program: str) -> None:
    script = Path(sys.executable).with_name(program)
    said = subprocess.run([sys.executable, script, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout == f"{program} {__version__}\n"

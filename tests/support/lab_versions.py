"""An older rbee beside the checkout's on a host that sees the checkout: the same code under another number.

What runs it is the checkout's environment; which sources that imports decides which rbee it is, and what it installs.
"""

import re
import shutil

from tests.support.lab_cluster import SOON_S
from tests.support.lab_disk import ROOT
from tests.support.lab_host import Host
from tests.support.lab_machine import Done

from rbee_shared.version import __version__

OLDER = "0.0.9"
_SOURCES = f"/opt/rbee-{OLDER}"


def put_older(host: Host) -> None:
    """Have its sources there."""
    target = host.path(_SOURCES)
    shutil.copytree(ROOT / "src", target, ignore=shutil.ignore_patterns("__pycache__"))
    module = target / "rbee_shared" / "version.py"
    text, changes = re.subn(re.escape(f'"{__version__}"'), f'"{OLDER}"', module.read_text())
    assert changes == 1
    module.write_text(text)


def older_keeper(host: Host, *arguments: str, check: bool = True, within_s: float = SOON_S) -> Done:
    """Run its keeper there, and so its queen where that wakes one."""
    return host.run(["rbee-keeper", *arguments], env={"PYTHONPATH": _SOURCES}, check=check, within_s=within_s)

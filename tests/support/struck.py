"""Programs of `far/` that are killed, or get company, just before one change to the disk."""

import os
import shlex
import sys
from pathlib import Path

from tests.support.local_shell import LocalShell

_PROGRAM = Path(__file__).with_name("programs") / "struck_python.py"


def struck(directory: Path, shell: LocalShell, event: str, path: str, *, company: Path | None = None) -> str:
    """The Python to run them with, made in `directory`.

    It strikes at the audit event of that name with `path` in an argument: kill -9, or the file `company` appears.
    """
    file = {} if company is None else {"STRIKE_FILE": str(company)}
    shell.env = {**shell.env, "STRIKE_EVENT": event, "STRIKE_PATH": path, **file}
    python = directory / "struck-python"
    command = shlex.join([os.path.realpath(sys.executable), str(_PROGRAM)])
    python.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    python.chmod(0o700)
    return str(python)

"""Runs the steps of an installation in the new environment: pip, and the programs that are to be tried out.

A step ends with who started it, also when that is killed, and holds its lock until then.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from queen_rbee.nodes.far.ground import Refusal

_KEPT_LINES = 40
_SIGN_S = 1.0
_EXIT_S = 60.0

# Runs a module or a script and ends with who started it: a killed installation leaves no pip behind.
_GUARD = """
import os, runpy, signal, sys, threading

def watch():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)

threading.Thread(target=watch, daemon=True).start()
sys.argv = sys.argv[1:]
if os.sep in sys.argv[0]:
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""

# would lead pip or Python elsewhere than into the new environment
_MISLEADING = re.compile(
    r"PYTHON|RBEE_|PIP_(?:USER|TARGET|PREFIX|ROOT|NO_DEPS|NO_BINARY|ONLY_BINARY|REQUIRE_HASHES|LOG|CACHE_DIR)"
)


@dataclass(frozen=True)
class Steps:
    """`python`: of the new environment; `home`: where rbee is; `scratch`: for what a step throws away; `lock`: held."""

    python: str
    home: Path
    scratch: Path
    lock: int

    def run(self, title: str, arguments: list[str], hear: Callable[[list[str]], None] = lambda _: None) -> list[str]:
        """Run a module or a script. `hear` gets the lines so far, once a second at most; the last lines are returned.

        Raises:
            Refusal: it failed.
        """
        process = subprocess.Popen(  # noqa: S603 - the new environment's Python and words of our own
            [self.python, "-I", "-c", _GUARD, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=self._environment(), pass_fds=(self.lock,), start_new_session=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            lines = _follow(process.stdout, hear)
            status = process.wait(_EXIT_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if status:
            raise Refusal("step", f"{title} failed (status {status})", tuple(lines[-_KEPT_LINES:]))
        return lines[-_KEPT_LINES:]

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not _MISLEADING.match(name)}
        return {**kept, "TMPDIR": str(self.scratch), "RBEE_HOME": str(self.home)}


def _follow(output: IO[bytes], hear: Callable[[list[str]], None]) -> list[str]:
    lines: list[str] = []
    told_s = time.monotonic()
    for raw in output:
        lines.append(raw.decode(errors="replace").rstrip())
        if time.monotonic() - told_s > _SIGN_S:
            told_s = time.monotonic()
            hear(lines)
    return lines

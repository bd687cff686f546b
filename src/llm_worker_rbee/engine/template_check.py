"""Tries a chat template in a child process before the worker is ready.

Whatever the template does to the child, `checking` ends it, waits for it, and tells what happened.
"""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import IO

from llm_worker_rbee.engine.template_trial import CPU_S, MEMORY_BYTES, Trial

LIMIT_S = 5.0
_COLLECT_S = 0.2  # for a child that has ended already
_MAX_REASON = 500

_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from llm_worker_rbee.engine.template_trial import main; main()"


@dataclass
class TemplateCheck:
    """A check that was begun. `finish` may be called once."""

    _child: "subprocess.Popen[str] | None"
    _ends_at_s: float

    def finish(self) -> str:
        """What is wrong with the template, as the end of a sentence about it; empty when nothing is. Blocking."""
        if self._child is None:
            return "could not be checked: no process can be started"
        try:
            said, _ = self._child.communicate(timeout=max(_COLLECT_S, self._ends_at_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            return f"was not ready after {LIMIT_S:g} s"
        except UnicodeDecodeError:
            return "could not be checked: its check said nothing that can be read"
        return said[:_MAX_REASON] if self._child.returncode == 0 else _why_it_died(self._child.returncode)


@contextlib.contextmanager
def checking(source: str, strings: dict[str, str], limit_s: float = LIMIT_S) -> Generator[TemplateCheck]:
    """Begin to check the template `source`; the child is gone when the block is left.

    Args:
        source: the template.
        strings: the variables that it always gets, see `chat.strings_of`.
        limit_s: for the whole check, from now on.
    """
    with tempfile.TemporaryFile("w+") as given:  # no pipe: it would block until the child has started
        json.dump(Trial(source=source, strings=strings, limit_s=1.0), given)
        given.seek(0)
        child = _start(given)
        try:
            yield TemplateCheck(child, time.monotonic() + limit_s)
        finally:
            if child is not None:
                child.kill()
                child.communicate()


def _start(given: IO[str]) -> "subprocess.Popen[str] | None":
    argv = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _PROGRAM, *filter(None, sys.path)]
    try:
        return subprocess.Popen(  # noqa: S603 - this interpreter, on a program of ours
            argv, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
        )
    except OSError:
        return None


def _why_it_died(status: int) -> str:
    if status in {-signal.SIGXCPU, -signal.SIGKILL}:
        return f"takes more than {CPU_S} s of processor time to check"
    return f"could not be checked: its check, with {MEMORY_BYTES} bytes of memory, ended with status {status}"

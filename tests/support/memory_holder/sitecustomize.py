"""On PYTHONPATH of a hive: makes its workers leave a detached process behind that holds 600 MB.

Acts in worker processes only, which their environment marks; writes the holder's pid to `$RBEE_TEST_HOLDER_PID`.
"""

import atexit
import os
import sys
import time
from pathlib import Path

_HELD_BYTES = 600_000_000
_HELD_S = 60


def _leave_a_holder() -> None:
    holds, told = os.pipe()
    if os.fork() > 0:
        os.close(told)
        os.read(holds, 1)  # in the group of the dead it would be killed with them
        return
    os.setsid()
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    memory = bytearray(_HELD_BYTES)
    memory[:: os.sysconf("SC_PAGE_SIZE")] = b"x" * len(memory[:: os.sysconf("SC_PAGE_SIZE")])
    Path(os.environ["RBEE_TEST_HOLDER_PID"]).write_text(str(os.getpid()))
    os.write(told, b".")
    time.sleep(_HELD_S)
    os._exit(0)


if "RBEE_WORKER_ID" in os.environ and any("llm-worker-rbee" in part for part in sys.orig_argv):
    atexit.register(_leave_a_holder)

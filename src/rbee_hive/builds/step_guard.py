"""Runs one program of a worker build and lets nothing of it outlive the hive: `python step_guard.py ARGUMENTS...`.

The end of its stdin is the order to stop; it comes also when the hive is killed. A signal to the process group would
not do: ninja gives every compiler a group of its own, and a dead parent's children belong to nobody. So this process
adopts orphans where the kernel lets it (Linux), asks the whole family to end, and then insists.
"""

import contextlib
import ctypes
import os
import subprocess
import sys
import threading
import time

_GRACE_S = 2.0
_KILL_S = 3.0
_NICENESS = 10  # a build must not slow down answers
_PR_SET_CHILD_SUBREAPER = 36
_CANNOT_START, _SIGNALLED, _STOPPED = 127, 128, 143  # as shells have it


def main() -> int:
    """The status of the program; 128 + N if signal N ended it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.nice(_NICENESS)
    try:
        process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)  # noqa: S603 - the hive built it
    except OSError as error:
        sys.stderr.write(f"cannot start {sys.argv[1]}: {error}\n")
        return _CANNOT_START
    stopped = threading.Event()
    threading.Thread(target=_stop_at_end_of_file, args=(stopped,), daemon=True).start()
    status = process.wait()
    _end_family()
    if stopped.is_set():
        return _STOPPED
    return status if status >= 0 else _SIGNALLED - status


def _stop_at_end_of_file(stopped: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stopped.set()
    _end_family()
    os._exit(_STOPPED)


def _end_family() -> None:
    """Return when no descendant is left, or none that can be ended."""
    if not _has_children():
        return
    import psutil  # noqa: PLC0415 - a step that ends by itself, as most do, does not pay for it

    me = psutil.Process()
    family = me.children(recursive=True)
    for process in family:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(family, timeout=_GRACE_S)
    deadline_s = time.monotonic() + _KILL_S
    while (family := me.children(recursive=True)) and time.monotonic() < deadline_s:
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(family, timeout=_KILL_S / 10)


def _has_children() -> bool:
    """Asks without collecting any: `Popen` waits for the status of its own."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())

"""Asks the kernel to end this process when its parent ends. Imported and called before anything else.

PDEATHSIG is Linux only and fires when the *thread* that spawned the child ends, so parents spawn from their main
thread. End-of-file on stdin and the lease guard what it cannot see.
"""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(with_signal: signal.Signals) -> None:
    """Have the kernel send `with_signal` to this process when its parent dies; does nothing where that is unknown."""
    if sys.platform == "linux" and any(argument.partition("=")[0] == "--parent" for argument in sys.argv):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(with_signal), 0, 0, 0)

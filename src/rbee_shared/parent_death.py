"""Asks the kernel to end this process when its parent ends. Imported and called before anything else.

PDEATHSIG is Linux only and fires when the *thread* that spawned the child ends, so parents spawn from their main
thread. End-of-file on stdin and the lease guard what it cannot see.
"""

import ctypes
import signal
import sys

from rbee_shared.parent import Parent, parent_of

_PR_SET_PDEATHSIG = 1


def die_with_parent(with_signal: signal.Signals) -> None:
    """Have the kernel send `with_signal` to this process when its parent dies; does nothing where that is unknown.

    Only with `--parent stdin`: the parent of a process that SSH has started is its connection's server, and the end of
    a connection is no death.
    """
    if sys.platform == "linux" and parent_of(sys.argv[1:]) is Parent.STDIN:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(with_signal), 0, 0, 0)

"""Runs a program in the namespaces of a process and ends as it ends: `lab_carrier.py PID COMMAND...`.

nsenter does nearly that, but stops itself whenever the program is stopped, and then sees neither its going on nor its
death. The program leads a session of its own; this one keeps none of its streams open.
"""

import ctypes
import os
import resource
import signal
import sys

_KINDS = ("ipc", "uts", "net", "pid", "mnt")
_NOT_FOUND = 127


def join(pid: int) -> None:
    """Children of this process are in the namespaces of `pid` from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    # all are opened before one is entered: with the mounts goes this /proc
    for descriptor in [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in _KINDS]:
        if libc.setns(descriptor, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot join a namespace")
        os.close(descriptor)


def run(command: list[str]) -> None:
    """In the child: become the program."""
    os.setsid()
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    try:
        os.execv(command[0], command)
    finally:
        os._exit(_NOT_FOUND)


def main() -> None:
    join(int(sys.argv[1]))
    child = os.fork()
    if child == 0:
        run(sys.argv[2:])
    os.closerange(0, 3)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        end_by(signal.Signals(-code))
    os._exit(code)


def end_by(number: signal.Signals) -> None:
    """As the program did; the core, if it left one, is its own."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    main()

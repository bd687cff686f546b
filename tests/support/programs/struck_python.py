"""A Python that meets with something just before one change to the disk: a kill -9, or somebody else's file.

struck_python.py -I -c CODE    with STRIKE_EVENT (of Python's audit events) on a path that has STRIKE_PATH in it;
STRIKE_FILE is made then, and without one the process is killed.
"""

import os
import signal
import sys
from pathlib import Path

_EVENT, _PATH, _FILE = os.environ["STRIKE_EVENT"], os.environ["STRIKE_PATH"], os.environ.get("STRIKE_FILE")


def strike(event: str, arguments: tuple[object, ...]) -> None:
    if event != _EVENT or not any(_PATH in str(argument) for argument in arguments):
        return
    if _FILE is None:
        os.kill(os.getpid(), signal.SIGKILL)
    else:
        Path(_FILE).touch()


sys.addaudithook(strike)
exec(sys.argv[3])

"""A child program that misbehaves as told: `odd_child.py BEHAVIOUR [ARGUMENT]`.

It speaks the records of a daemon on stdout, and lives until end of file on its stdin unless its behaviour says
otherwise. `listening` is said by those that go on.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

_FOR_EVER_S = 600


def _say(kind: str, n: int = 0, **facts: object) -> None:
    os.write(1, json.dumps({"type": kind, "n": n, **facts}).encode() + b"\n")


def _listening(n: int = 0) -> None:
    _say("listening", n, url="http://127.0.0.1:1", instance=sys.stdin.readline().strip()[:7])


def _until_end_of_file() -> None:
    sys.stdin.read()


def well_behaved() -> None:
    _say("narration", 1, actor="hive", action="say", human="up")
    _listening(1)
    _until_end_of_file()
    _say("narration", 2, actor="hive", action="say", human="goodbye")


def flood() -> None:
    _listening()
    line = json.dumps({"type": "narration", "n": 0, "actor": "hive", "human": "x" * 200})
    for number in range(1, 20_001):
        os.write(1, line.replace('"n": 0', f'"n": {number}').encode() + b"\n")
    _until_end_of_file()


def garbage() -> None:
    garbage_lines = [
        b"\xff\xfe\x00 not text\n",
        b"\n\n[]\nnull\n3\n{}\n",
        b'{"type": "narration"}\n{"type": "narration", "n": {}}\n',
        b'{"type": "narration", "n": Infinity}\n{"type": "narration", "n": NaN}\n',
        b"[" * 60_000 + b"\n",
        b"x" * 1_000_000 + b"\n",
        b'{"type": "failed", "n": 0, "error": "text"}\n',
        b'{"type": "unheard-of", "n": 0}\n',
    ]
    for line in garbage_lines:
        written = 0
        while written < len(line):
            written += os.write(1, line[written:])
    _say("narration", 7, actor="nobody", human=["no", "text"], level=3, details="none", at_ms="x")
    _listening(7)
    _until_end_of_file()


def endless_line() -> None:
    _listening()
    for _ in range(100):
        os.write(1, b"y" * 10_000)
    _until_end_of_file()


def deaf() -> None:
    """Neither end of file nor TERM ends it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _listening()
    time.sleep(_FOR_EVER_S)


def grandchild() -> None:
    """Leave a child of our own behind that holds our stdout open, in our process group."""
    _leave_behind(new_session=False)


def stray_grandchild() -> None:
    """The same, in a session of its own, and it never stops writing."""
    _leave_behind(new_session=True)


def _leave_behind(*, new_session: bool) -> None:
    noise = "import sys, os, time\nwhile True:\n "
    noise += "os.write(1, b'z' * 5000 + b'\\n')" if new_session else "time.sleep(1)"
    started = subprocess.Popen(
        [sys.executable, "-S", "-c", noise], stdin=subprocess.DEVNULL, start_new_session=new_session
    )
    _say("narration", 1, actor="hive", action="left", human="left", details={"pid": started.pid})
    _listening(1)


def dies_at_once() -> None:
    os._exit(7)


def fails() -> None:
    error = {
        "code": "PORT_IN_USE",
        "message": "port 1 is held by init (pid 1)",
        "hint": "choose",
        "details": {"port": 1},
    }
    sys.stderr.write("\x1b[31mred\x1b[0m token=abcdefghijklmnopqrstuv\n")
    _say("failed", 0, error=error)
    sys.exit(1)


def exits_well() -> None:
    sys.exit(0)


def crashes() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def closes_stdout() -> None:
    os.close(1)
    _until_end_of_file()


def late_words() -> None:
    """Takes its time to stop, and speaks while it does."""
    _listening()
    _until_end_of_file()
    for number in range(1, 6):
        time.sleep(0.02)
        _say("narration", number, actor="hive", action="stopping", human=f"stopping {number}")


_BEHAVIOURS: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (
        well_behaved, flood, garbage, endless_line, deaf, grandchild, stray_grandchild, dies_at_once, fails, exits_well,
        crashes, closes_stdout, late_words,
    )
}  # fmt: skip

if __name__ == "__main__":
    _BEHAVIOURS[sys.argv[1]]()

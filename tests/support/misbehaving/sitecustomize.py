"""On PYTHONPATH of a hive: makes its workers misbehave as `$RBEE_TEST_MISBEHAVIOUR` says.

eats-memory   takes memory without end, once it gets SIGUSR1
stalls        its engine stops in mid-step, once it gets SIGUSR1; heartbeats go on
aborts        dies of SIGABRT while it loads its model
leaves        dies of SIGKILL once it gets SIGUSR1, a detached process of its own lives on
stays         does nothing at all, and neither TERM nor end-of-file nor its parent's death ends it
"""

import ctypes
import os
import signal
import sys
import threading
import time

_STEP_BYTES = 16 * 1024 * 1024
_LONG_S = 600.0


def _eat(*_: object) -> None:
    eaten = []
    while True:
        eaten.append(ctypes.create_string_buffer(b"x" * _STEP_BYTES))


def _stall(*_: object) -> None:
    from llama_cpp import llama_cpp  # noqa: PLC0415 - the worker has it by then

    llama_cpp.llama_decode = lambda *_: time.sleep(_LONG_S)


def _abort_while_loading() -> None:
    while "llama_cpp" not in sys.modules:
        time.sleep(0.001)
    os.abort()


def _leave_somebody(*_: object) -> None:
    left, has_left = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.closerange(0, 3)
        os.write(has_left, b".")
        time.sleep(_LONG_S)
        os._exit(0)
    os.close(has_left)
    os.read(left, 1)  # in the group of the dead it would be killed with them
    os.kill(os.getpid(), signal.SIGKILL)


def _stay() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(_LONG_S)


if "RBEE_WORKER_ID" in os.environ and any("llm-worker-rbee" in part for part in sys.orig_argv):
    match os.environ.get("RBEE_TEST_MISBEHAVIOUR"):
        case "eats-memory":
            signal.signal(signal.SIGUSR1, _eat)
        case "stalls":
            signal.signal(signal.SIGUSR1, _stall)
        case "aborts":
            threading.Thread(target=_abort_while_loading, daemon=True).start()
        case "leaves":
            signal.signal(signal.SIGUSR1, _leave_somebody)
        case "stays":
            _stay()

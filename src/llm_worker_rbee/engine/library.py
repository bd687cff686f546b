"""The bindings of llama.cpp, and what llama.cpp says while it works.

llama.cpp writes to no descriptor of ours: its lines go to our log (DEBUG), its last errors are kept for the message of
a failed load, and what it tells from `begin_load` to `end_load` is the report of that load.
"""

import importlib.util
import logging
import os
import sys
from collections import deque
from typing import Any

from llm_worker_rbee.domain.load_log import LoadReport, LogLines, read_load_log
from rbee_shared.errors import BackendUnavailableError
from rbee_shared.redaction import printable_line

_LOG = logging.getLogger("rbee.llama")
_SPINS = "3000"  # docs/performance.md has what it costs alone and gains beside another worker
_KEPT_ERRORS = 20
_KEPT_LOAD_LINES = 1000  # the buffers stand among the last hundred
_DEBUG, _INFO, _WARNING, _ERROR, _CONTINUED = range(1, 6)


def load_bindings() -> Any:
    """The low-level bindings (`llama_cpp.llama_cpp`).

    The package's own `__init__` imports the high-level class with numpy and every chat format, none of which is used
    here: 30 ms instead of 250.

    Raises:
        BackendUnavailableError: llama-cpp-python is not installed, or its library does not load.
    """
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # an abort would fork gdb and hold the process for a second
    # threads that wait for each other spin for milliseconds by default: with anything else on the same cores, another
    # worker or a compiler, each then burns the time that the other needs
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    try:
        if "llama_cpp" not in sys.modules:
            spec = importlib.util.find_spec("llama_cpp")
            if spec is None:
                raise _unavailable("llama-cpp-python is not installed")
            sys.modules["llama_cpp"] = importlib.util.module_from_spec(spec)
        import llama_cpp.llama_cpp as bindings  # noqa: PLC0415 - late: the port is bound before this is loaded
    except (ImportError, OSError, RuntimeError) as error:
        raise _unavailable(str(error)) from None
    return bindings


def _unavailable(why: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"llama.cpp cannot be loaded: {why}", hint="Install the engine: pip install 'rbee[worker]'."
    )


def load_ggml() -> Any:
    """The library below llama.cpp, which knows the devices."""
    from llama_cpp._ggml import libggml  # noqa: PLC0415 - as above

    return libggml


class NativeLog:
    """Receives llama.cpp's log until `close`. Between loads it looks at warnings and errors only."""

    def __init__(self, bindings: Any) -> None:
        self._errors: deque[str] = deque(maxlen=_KEPT_ERRORS)
        self._told: deque[str] = deque(maxlen=_KEPT_LOAD_LINES)
        self._usual_level = _DEBUG if _LOG.isEnabledFor(logging.DEBUG) else _WARNING
        self._heard_from = self._usual_level
        self._loading = False
        self._lines = LogLines()
        self._level = 0
        # kept: llama.cpp calls it until it has another, and a collected callback is a segmentation fault
        self._callback = bindings.llama_log_callback(self._hear)
        self._bindings = bindings
        bindings.llama_log_set(self._callback, None)

    def close(self) -> None:
        """From here on llama.cpp speaks for itself; after the last model is freed it has nothing to say."""
        self._bindings.llama_log_set(self._bindings.llama_log_callback(), None)

    def begin_load(self) -> None:
        """Keep what is told from here on, for `end_load`."""
        self._told.clear()
        self._errors.clear()
        self._loading = True
        self._heard_from = min(self._usual_level, _INFO)

    def end_load(self) -> LoadReport:
        """What was loaded since `begin_load`, and where to."""
        self._drain()
        self._loading = False
        self._heard_from = self._usual_level
        report = read_load_log(self._told)
        self._told.clear()
        return report

    def why(self) -> str:
        """The last thing that went wrong, in llama.cpp's words."""
        self._drain()
        errors = [line.partition(": ")[2] or line for line in self._errors]
        return errors[0] if errors else "llama.cpp gave no reason"

    def forget(self) -> None:
        """What went wrong so far explains nothing that comes."""
        self._errors.clear()

    def _hear(self, level: int, text: bytes | None, _: object) -> None:
        if level != _CONTINUED:
            self._level = level
        if self._level >= self._heard_from:
            for line_level, line in self._lines.feed(level, (text or b"").decode(errors="replace")):
                self._take(line_level, line)

    def _drain(self) -> None:
        for level, line in self._lines.rest():
            self._take(level, line)

    def _take(self, level: int, text: str) -> None:
        line = printable_line(text).strip()
        if not line:
            return
        if level == _ERROR:
            self._errors.append(line)
        if self._loading:
            self._told.append(line)
        _LOG.log(logging.WARNING if level == _ERROR else logging.DEBUG, "%s", line)

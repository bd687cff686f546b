"""The bindings of llama.cpp, and what llama.cpp says while it works.

llama.cpp writes to no descriptor of ours: its lines go to our log (DEBUG), and its last warnings and errors are kept
for the message of a failed load.
"""

import importlib.util
import logging
import os
import sys
from collections import deque
from typing import Any

from rbee_shared.errors import BackendUnavailableError
from rbee_shared.redaction import printable_line

_LOG = logging.getLogger("rbee.llama")
_KEPT_LINES = 20
_WARNING, _ERROR = 3, 4
_CONTINUED = 5


def load_bindings() -> Any:
    """The low-level bindings (`llama_cpp.llama_cpp`).

    The package's own `__init__` imports the high-level class with numpy and every chat format, none of which is used
    here: 30 ms instead of 250.

    Raises:
        BackendUnavailableError: llama-cpp-python is not installed, or its library does not load.
    """
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # an abort would fork gdb and hold the process for a second
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
    """Receives llama.cpp's log for the life of the process."""

    def __init__(self, bindings: Any) -> None:
        self._tail: deque[str] = deque(maxlen=_KEPT_LINES)
        self._verbose = _LOG.isEnabledFor(logging.DEBUG)
        self._level = 0
        # kept: llama.cpp calls it for ever, and a collected callback is a segmentation fault
        self._callback = bindings.llama_log_callback(self._hear)
        bindings.llama_log_set(self._callback, None)

    def why(self) -> str:
        """The last thing that went wrong, in llama.cpp's words."""
        errors = [line.partition(": ")[2] or line for line in self._tail]
        return errors[0] if errors else "llama.cpp gave no reason"

    def forget(self) -> None:
        """What was said so far explains nothing that comes."""
        self._tail.clear()

    def _hear(self, level: int, text: bytes | None, _: object) -> None:
        self._level = level if level != _CONTINUED else self._level
        if self._level >= _WARNING or self._verbose:
            line = printable_line((text or b"").decode(errors="replace")).strip()
            if self._level == _ERROR and line:
                self._tail.append(line)
            _LOG.log(logging.WARNING if self._level == _ERROR else logging.DEBUG, "%s", line)

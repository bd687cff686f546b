"""Which llama.cpp this worker runs: a worker build goes first on `sys.path`, before anything of it is imported.

Never a silent fall-back: a directory without the engine is refused, although the environment may have one of its own.
"""

import os
import sys
from pathlib import Path

from rbee_shared.errors import BackendUnavailableError

_BRINGS = ("llama_cpp", "numpy", "jinja2", "markupsafe", "llguidance")


def use_engine(directory: Path) -> None:
    """Have `import` find the engine, and what was installed beside it, in `directory`.

    Raises:
        BackendUnavailableError: it is no worker build, or cannot be read.
    """
    directory = directory.absolute()
    if (why := _why_unusable(directory)) is not None:
        raise BackendUnavailableError(
            f"the worker build cannot be used: {why}",
            hint="Make it anew: `rbee-hive builds make KIND`, or leave --engine-path out.",
        )
    early = sorted(set(_BRINGS) & set(sys.modules))
    assert not early, f"imported before --engine-path was looked at: {early}"
    os.environ.pop("LLAMA_CPP_LIB_PATH", None)  # the bindings would load the library from there instead
    sys.path.insert(0, str(directory))


def _why_unusable(directory: Path) -> str | None:
    try:
        if not directory.is_dir():
            return f"{directory} is no directory"
        if not os.access(directory, os.R_OK | os.X_OK):
            return f"{directory} cannot be read"
        if not (directory / "llama_cpp" / "llama_cpp.py").is_file():
            return f"{directory} holds no llama-cpp-python"
    except OSError as error:
        return f"{directory}: {error.strerror}"
    return None

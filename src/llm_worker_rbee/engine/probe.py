"""What is really in the llama.cpp that this interpreter loads: asked of the library, not of how it was made.

Loading it may crash the process; whoever wants to know asks a process of its own: `llm-worker-rbee --probe`.
"""

import importlib.metadata
import importlib.util
import platform
import sys
from pathlib import Path
from typing import Any

from llm_worker_rbee.domain.system_info import features
from llm_worker_rbee.engine.devices import Devices
from llm_worker_rbee.engine.library import load_bindings, load_ggml

_DISTRIBUTION = "llama-cpp-python"
_BESIDE = ("jinja2", "llguidance", "markupsafe", "numpy")


def describe_build() -> dict[str, Any]:
    """Version, backends with their devices, features, modules that are missing beside it, and what it runs on.

    Raises:
        BackendUnavailableError: there is no llama-cpp-python, or its library does not load.
    """
    bindings = load_bindings()
    devices = Devices(bindings, load_ggml()).by_backend()
    return {
        "version": _version(Path(bindings.__file__).parent.parent),
        "path": str(Path(bindings.__file__).parent),
        "backends": list(devices),
        "devices": {backend: list(descriptions) for backend, descriptions in devices.items()},
        "features": list(features(bindings.llama_print_system_info().decode(errors="replace"))),
        "missing": [name for name in _BESIDE if importlib.util.find_spec(name) is None],
        "python": f"cp{sys.version_info.major}{sys.version_info.minor}",
        "platform": f"{platform.system()}-{platform.machine()}".lower(),
    }


def _version(directory: Path) -> str:
    """Of the package in that very directory: the environment may have another one beside it."""
    found = importlib.metadata.distributions(name=_DISTRIBUTION, path=[str(directory)])
    return next((distribution.version for distribution in found), "unknown")

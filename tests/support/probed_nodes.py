"""Machines and queens for the tests of this directory."""

from typing import Any

from queen_rbee.domain.nodes.platform_tag import PlatformTag
from queen_rbee.domain.nodes.preflight import Mine
from queen_rbee.domain.nodes.probe_report import Installed, Probe, Python

INSTALLED = Installed(
    id="0.1.0-abababababab-1", version="0.1.0", wheel_sha256="ab" * 32, python="3.11.2", installed_at_unix=5
)
MINE = Mine("0.1.0", "ab" * 32, PlatformTag("linux-x86_64", "cp311", "glibc", (2, 36)), frozenset({"fpu", "avx2"}))


def python(**changed: Any) -> Python:
    facts: dict[str, Any] = {
        "path": "/usr/bin/python3", "version": (3, 11, 2), "implementation": "cpython", "bits": 64,
        "free_threaded": False, "venv": True, "system": "Linux", "machine": "x86_64", "libc": "glibc",
        "libc_version": "2.36", "macos_version": "",
    }  # fmt: skip
    return Python.model_validate({**facts, **changed})


PROBE = Probe(
    system="Linux", machine="x86_64", host="mac", user="vince", home="/home/v/.rbee", writable=True,
    disk_free_bytes=10**10, pythons=(python(),), compiler="/usr/bin/c++", cmake=None,
    cpu=frozenset({"fpu", "avx2", "avx512f"}), installed=None, runs=None, hive=None,
)  # fmt: skip

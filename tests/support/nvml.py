"""NVIDIA cards without a card: a driver library made from `nvml.c`, which the unmodified pynvml loads."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

GIB = 1024**3
_SOURCE = Path(__file__).with_name("nvml.c")
_PROGRAM = Path(__file__).parent / "programs" / "devices_of_node.py"
_END_S = 30.0


@dataclass(frozen=True)
class FakeDriver:
    """Where the library and its script lie. The script may change at any time: it is read at every call."""

    directory: Path

    @property
    def script(self) -> Path:
        return self.directory / "cards.txt"

    @property
    def shutdowns(self) -> int:
        mark = self.directory / "shutdown"
        return len(mark.read_text().splitlines()) if mark.exists() else 0

    def says(self, *lines: str) -> None:
        """Replace the script at once: no call sees half of it."""
        fresh = self.directory / "fresh.txt"
        fresh.write_text("".join(f"{line}\n" for line in lines))
        fresh.replace(self.script)

    def environment(self) -> dict[str, str]:
        """For the process that is to find this driver."""
        return {
            "LD_LIBRARY_PATH": str(self.directory),
            "FAKE_NVML": str(self.script),
            "FAKE_NVML_SHUTDOWN": str(self.directory / "shutdown"),
        }


def made_driver(directory: Path) -> FakeDriver:
    """The library, compiled into `directory`."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here to make a driver library with")
    library = directory / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, _SOURCE], check=True)
    return FakeDriver(directory)


def card(place: int | str, name: str = "NVIDIA H100", *, total: int = 80 * GIB, free: int = 60 * GIB) -> list[str]:
    """The script's lines for one healthy card, or (`"0.1"`) for one MIG instance."""
    uuid = f"{'MIG' if '.' in str(place) else 'GPU'}-{str(place).replace('.', '-')}1111111"
    return [f"{place}.name {name}", f"{place}.uuid {uuid}", f"{place}.total {total}", f"{place}.free {free}"]


class Node:
    """A process that looks at its devices when it is told to."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self.read()

    def look(self, callers: int = 1) -> dict[str, Any]:
        return self.ask(f"look {callers}")

    def read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the program died"
        return dict(json.loads(line))

    def end(self) -> int:
        """Its exit code, after it has closed everything."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(_END_S)


@contextmanager
def node(declared: object = (), **environment: str) -> Generator[Node]:
    """A node with its devices open. What the environment of the tests says about CUDA does not reach it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
    process = subprocess.Popen(
        [sys.executable, str(_PROGRAM), json.dumps(declared)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**inherited, **environment},
    )  # fmt: skip
    with process:
        try:
            one = Node(process)
            assert one.read() == {"open": True}
            yield one
        finally:
            process.kill()

"""What the benches share: which machine this is, five numbers as one line of a table, and what a row means.

Importing it takes `PYTHONPATH` out of the environment: what is measured starts as a user's command does.
"""

import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from tests.support.cluster import Cluster

os.environ.pop("PYTHONPATH", None)


@dataclass
class Figure:
    """One measured quantity. `target` None: only told; `at_least`: more is better."""

    name: str
    meaning: str
    unit: str = "s"
    target: float | None = None
    at_least: bool = False
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def is_met(self) -> bool | None:
        """Judged by the median."""
        if self.target is None:
            return None
        return self.median >= self.target if self.at_least else self.median <= self.target

    def cells(self) -> list[str]:
        """Name, median, min, max, target, verdict."""
        sign = ">=" if self.at_least else "<="
        target = "" if self.target is None else f"{sign} {self._text(self.target)}"
        verdict = {None: "", True: "met", False: "MISSED"}[self.is_met]
        return [self.name, *map(self._text, (self.median, min(self.values), max(self.values))), target, verdict]

    def _text(self, value: float) -> str:
        return f"{value:.3f} s" if self.unit == "s" else f"{value:,.0f} {self.unit}"


@contextmanager
def new_home(**env: str) -> Generator[Cluster]:
    """A home that is new, and gone afterwards with all that runs in it."""
    root = Path(tempfile.mkdtemp(prefix="rbee-bench-"))
    cluster = Cluster(root / "home", **env)
    try:
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(root, ignore_errors=True)


def machine() -> dict[str, Any]:
    """Where and when; the load average says whether somebody else was working here too."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "ram_bytes": psutil.virtual_memory().total,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average_1_min": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def machine_line(facts: dict[str, Any]) -> str:
    """The facts as one line."""
    return (
        f"{facts['date']}  {facts['cpu']}, {facts['cores']} cores, {facts['ram_bytes'] / 2**30:.0f} GiB RAM, "
        f"{facts['kernel']}, Python {facts['python']}, load average {facts['load_average_1_min']}"
    )


def print_figures(facts: dict[str, Any], figures: Sequence[Figure], *, as_json: bool) -> None:
    """The table with every definition below it; or everything as one JSON object."""
    figures = [figure for figure in figures if figure.values]
    if as_json:
        rows = [{**asdict(figure), "median": figure.median, "is_met": figure.is_met} for figure in figures]
        print(json.dumps({"machine": facts, "figures": rows}, indent=2))
        return
    rounds = max(len(figure.values) for figure in figures)
    table = [["", f"median of {rounds}", "min", "max", "target", ""], *(figure.cells() for figure in figures)]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        name, *numbers = row
        cells = [text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True)]
        print("  ".join([name.ljust(widths[0]), *cells]).rstrip())
    print()
    for figure in figures:
        print(f"{figure.name}: {figure.meaning}")

"""Writes src/rbee_hive/builds/engine.lock: the part of the locks that a hive needs to make a worker build.

The hive is installed without this checkout, so it carries its own copy. Called by `scripts/lock`.
"""

from pathlib import Path

from rbee_hive.domain.builds.engine_lock import ENGINE, NEEDS, TOOLS, locked

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Made by scripts/lock from requirements-worker.lock and requirements-build.lock.\n"


def engine_lock() -> str:
    """The text that the locks of this checkout ask for."""
    worker, build = ((ROOT / f"requirements-{name}.lock").read_text() for name in ("worker", "build"))
    from_worker = [locked(worker, name).lines for name in (ENGINE, *NEEDS)]
    return HEADER + "".join([*from_worker, *(locked(build, name).lines for name in TOOLS)])


if __name__ == "__main__":
    (ROOT / "src" / "rbee_hive" / "builds" / "engine.lock").write_text(engine_lock())

"""One answer from nothing: starts the keeper in a home of its own, looks at what it wrote and at what it left behind.

Run by `scripts/smoke` with the interpreter of `.venv`. Everything that rbee starts inherits `RBEE_HOME`; that is how
a process left behind is recognised, on Linux and macOS alike.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ANSWER_WITHIN_S = 120.0
GONE_WITHIN_S = 10.0
KEEPER = str(Path(sys.executable).with_name("rbee-keeper"))


def main() -> None:
    """Exit 0, or the reason on stderr and exit 1."""
    home = tempfile.mkdtemp(prefix="rbee-smoke-")
    try:
        reason = ask(home) or outstayed(home)
    finally:
        for process in living(home):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(home, ignore_errors=True)
    if reason:
        sys.exit(f"smoke: FAILED: {reason}")
    print("smoke: ok: one answer from this machine, and nothing left behind", file=sys.stderr)


def ask(home: str) -> str | None:
    """Run one inference; what is wrong with it, if anything."""
    elsewhere = {"RBEE_QUEEN_URL", "RBEE_TOKEN_FILE"}
    ours = {name: value for name, value in os.environ.items() if name not in elsewhere}
    ours |= {"RBEE_HOME": home, "RBEE_QUEEN_PORT": "0"}
    command = [KEEPER, "infer", "write a short story", "--quiet"]
    try:
        done = subprocess.run(
            command, env=ours, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=ANSWER_WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {ANSWER_WITHIN_S:.0f} s"
    if done.returncode:
        return f"rbee-keeper ended with {done.returncode}; what it said stands above"
    answer = done.stdout.decode(errors="replace").strip()
    if not answer:
        return "the answer is empty"
    print(answer)
    return None


def outstayed(home: str) -> str | None:
    """Who is still there when everybody should have gone."""
    deadline_s = time.monotonic() + GONE_WITHIN_S
    while (left := living(home)) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    if not left:
        return None
    names = ", ".join(f"{process.pid} {process.info['cmdline']}" for process in left)
    return f"still running {GONE_WITHIN_S:.0f} s after the answer: {names}"


def living(home: str) -> list[psutil.Process]:
    """Processes that were started with this `RBEE_HOME`; those of other users cannot be asked and are not ours."""
    everybody = psutil.process_iter(["environ", "cmdline"])
    return [process for process in everybody if (process.info["environ"] or {}).get("RBEE_HOME") == home]


if __name__ == "__main__":
    main()

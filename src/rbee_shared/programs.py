"""How to start each of the four programs so that its name shows in its command line."""

import sys
from pathlib import Path
from typing import Literal

Program = Literal["queen-rbee", "rbee-hive", "llm-worker-rbee"]


def program_argv(program: Program) -> list[str]:
    """This interpreter running the program's console script, or its package where no script is installed."""
    script = Path(sys.executable).with_name(program)
    if script.exists():
        return [sys.executable, str(script)]
    return [sys.executable, "-m", program.replace("-", "_")]

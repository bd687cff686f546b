"""`llm-worker-rbee --probe`: one line of JSON that says what the engine can do, or why it does not load."""

import json
import sys
from pathlib import Path

from llm_worker_rbee.engine_path import use_engine
from rbee_shared.errors import RbeeError


def run_probe(engine_path: Path | None) -> int:
    """Print the report; the exit status. A library that crashes takes this process with it: the caller sees that."""
    try:
        if engine_path is not None:
            use_engine(engine_path)
        from llm_worker_rbee.engine.probe import describe_build  # noqa: PLC0415 - after `use_engine`

        record = describe_build()
    except RbeeError as error:
        record = {"error": error.message, "hint": error.hint}
    sys.stdout.write(f"\n{json.dumps(record)}\n")  # a line of its own, whatever the library has printed before
    sys.stdout.flush()
    return 1 if "error" in record else 0

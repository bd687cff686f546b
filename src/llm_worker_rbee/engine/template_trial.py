"""The program that tries a chat template before a worker relies on it: `main` compiles and renders it, under limits.

It reads a `Trial` as JSON from stdin, writes what is wrong with the template to stdout, nothing when all is well, and
ends by itself whatever the template does. It imports Jinja and the sandbox alone: its start is part of a worker's.
"""

import contextlib
import json
import resource
import signal
import sys
import time
from typing import Any, TypedDict

from llm_worker_rbee.domain.render_limits import Meter, TooMuchError
from llm_worker_rbee.engine.template_sandbox import COMPILE_ERRORS, RENDER_ERRORS, compile_template, reason

MEMORY_BYTES = 512 * 1024 * 1024
CPU_S = 3
_ALARM_S = 10  # when nobody is left to end it

_CALL = {"type": "function", "id": "call_0_1", "function": {"name": "clock", "arguments": {"zone": "UTC"}}}
_TOOL = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "The time.",
        "parameters": {"type": "object", "properties": {"zone": {"type": "string", "description": "Where."}}},
    },
}
_TURNS = (
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "What time is it?"},
)
_CONVERSATIONS: tuple[tuple[tuple[dict[str, Any], ...], list[dict[str, Any]] | None], ...] = (
    (_TURNS[:1], None),
    (({"role": "system", "content": "Be brief."}, *_TURNS), None),
    (
        (
            *_TURNS,
            {"role": "assistant", "content": "", "tool_calls": [_CALL]},
            {"role": "tool", "content": "12:00", "name": "clock", "tool_call_id": "call_0_1"},
        ),
        [_TOOL],
    ),
)


class Trial(TypedDict):
    """What is tried. `strings`: the variables that every template gets."""

    source: str
    strings: dict[str, str]
    limit_s: float


def fault_of(trial: Trial) -> str:
    """What is wrong with a template; empty when it compiles and keeps its limits, also if it refuses every turn."""
    try:
        program = compile_template(trial["source"])
    except COMPILE_ERRORS as error:
        return f"is not valid: {reason(error)}"
    for messages, tools in _CONVERSATIONS:
        variables = {"messages": messages, "tools": tools, "add_generation_prompt": True, **trial["strings"]}
        try:
            meter = Meter(time.monotonic, trial["limit_s"])
            program.render(meter, {name: meter.keep_all(value) for name, value in variables.items()})
        except TooMuchError as error:
            return str(error)
        except MemoryError:
            return f"needs more than {MEMORY_BYTES} bytes of memory"
        except RENDER_ERRORS:
            continue  # it may well refuse this conversation
    return ""


def main() -> None:
    for kind, limit in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(OSError, ValueError):  # macOS has no limit of address space
            resource.setrlimit(kind, (limit, limit))
    signal.alarm(_ALARM_S)
    sys.stdout.write(fault_of(json.load(sys.stdin)))

"""What the keeper loads before it does anything: speed is a matter of imports."""

import json
import subprocess
import sys

import pytest

_HEAVY = ["aiohttp", "asyncssh", "fastapi", "httpx2", "huggingface_hub", "psutil", "pydantic", "rich", "uvicorn"]
_PRINT_LOADED = "import json, sys; {}; print(json.dumps(sorted(sys.modules)))"


def loaded_by(statement: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _PRINT_LOADED.format(statement)], capture_output=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("group", [[], ["node"], ["pool", "models"]])
def test_help_loads_typer_and_little_else(group: list[str]) -> None:
    arguments = ["rbee-keeper", *group, "--help"]
    run_help = f"sys.argv = {arguments!r}; import rbee_keeper.cli as cli; assert cli.run() == 0"

    loaded = loaded_by(run_help)

    assert loaded.isdisjoint({*_HEAVY, "anyio", "asyncio", "h11", "rbee_keeper.render", "rbee_keeper.inference"})


@pytest.mark.parametrize("module", ["rbee_keeper.inference", "rbee_keeper.session", "rbee_shared.queen_api"])
def test_a_warm_answer_needs_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import {module}").isdisjoint(_HEAVY)


def test_a_command_line_is_checked_without_the_event_loop() -> None:
    arguments = ["rbee-keeper", "infer", "x", "--timeout", "-1"]
    wrong = f"sys.argv = {arguments!r}; import rbee_keeper.cli as cli; assert cli.run() == 2"

    assert loaded_by(wrong).isdisjoint({*_HEAVY, "anyio._backends._asyncio"})

"""What the keeper of a host says to programs (`--json`), read: answers, refusals, nodes, hives, and who lives where."""

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import psutil
from tests.support.lab_cluster import SOON_S, keeper
from tests.support.lab_host import Host


@dataclass(frozen=True)
class Answered:
    """One answer. `started`: where it was given, and by which worker."""

    started: dict[str, Any]
    text: str


def infer(host: Host, *arguments: str, within_s: float = SOON_S) -> Answered:
    """Ask a model.

    Raises:
        AssertionError: there was no answer with at least one token.
    """
    done = keeper(host, "infer", *arguments, "--json", within_s=within_s)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    text = "".join(event["t"] for event in events if event["type"] == "token")
    assert text.strip(), done
    (started,) = (event for event in events if event["type"] == "started")
    return Answered(started, text)


def refusal(host: Host, *arguments: str, within_s: float = SOON_S) -> dict[str, Any]:
    """The error that the keeper ends with."""
    done = keeper(host, *arguments, "--json", check=False, within_s=within_s)
    assert done.status != 0, done.stdout
    said = [json.loads(line) for line in done.stdout.splitlines()]
    errors: list[dict[str, Any]] = [
        each.get("error", each) for each in said if "error" in each or each.get("type") == "error"
    ]
    (error,) = errors
    assert error["hint"], "every refusal says what to do next"
    return error


def document(host: Host, *arguments: str, within_s: float = SOON_S) -> dict[str, Any]:
    """What a command that succeeds prints."""
    found: dict[str, Any] = json.loads(keeper(host, *arguments, "--json", within_s=within_s).stdout)
    return found


def of_nodes(host: Host, *arguments: str, within_s: float = SOON_S) -> dict[str, dict[str, Any]]:
    """What a `pool` command prints of each node, by the node's name."""
    found: dict[str, dict[str, Any]] = document(host, "pool", *arguments, within_s=within_s)["nodes"]
    return found


def prefix_of(host: Host, process: psutil.Process) -> str:
    """`sys.prefix` of a Python that runs on that host: where its environment is, which its libraries come from.

    Raises:
        AssertionError: it runs in no environment, or has no library of it loaded.
    """
    prefix = PurePosixPath(process.cmdline()[0]).parents[1]
    assert host.path(f"{prefix}/pyvenv.cfg").is_file(), process.cmdline()
    mapped = {each.path for each in process.memory_maps()}
    assert any(PurePosixPath(path).is_relative_to(prefix / "lib") for path in mapped), mapped
    return str(prefix)

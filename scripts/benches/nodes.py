"""Nodes over SSH: from a bare account to a token, what the way costs, and how soon a dead queen's hive is gone.

Three hosts with sshd in namespaces of this machine (tests/lab), so all share its cores and no cable is between them.
Needs root. Missing a target is said in the table.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measuring import Figure, machine, print_figures
from tests.support.cluster import wait_until
from tests.support.lab import Lab, running_lab, why_not_here
from tests.support.lab_cluster import (
    ENDLESS,
    METAL,
    PROGRAMS,
    keeper,
    long_answer,
    name_hosts,
    put_endless,
    put_installation,
    save_installation,
    slow_line,
    standing_queen,
)
from tests.support.lab_machine import OnHost

STREAMS = Path(__file__).parents[2] / "tests" / "support" / "programs" / "streams.py"
MANY = 64
FAR_MS = 50
GONE_S = 90.0
INSTALL_S = 600.0

FIGURES = {
    "bare": Figure(
        "bare account -> first token",
        "exec of `rbee-keeper infer --node mac` -> first byte on its stdout; rbee's libraries go along as a wheelhouse",
    ),
    "off": Figure("known node, all off -> first token", "the same command once rbee is there"),
    "warm_ssh": Figure("warm worker -> first token, SSH", "POST /v2/tasks on blep -> first token frame, from mac"),
    "warm_http": Figure("warm worker -> first token, HTTP", "the same over plain HTTP, hive on mac's own address"),
    "warm_far": Figure("warm worker -> first token, SSH, far away", "the same, every byte 50 ms on the way each way"),
    "token_ssh": Figure("per token, SSH", "one stream of 500 tokens: mean time between two", unit="us"),
    "token_far": Figure("per token, SSH, far away", "the same, every byte 50 ms on the way each way", unit="us"),
    "token_http": Figure("per token, HTTP", "the same over plain HTTP", unit="us"),
    "many_ssh": Figure(f"{MANY} streams, one SSH connection", "tokens/s in all, 64 tokens each", unit="tok/s"),
    "many_http": Figure(f"{MANY} streams, HTTP", "the same over plain HTTP", unit="tok/s"),
    "killed": Figure("queen killed -> hive and worker gone", "kill -9 in mid-answer", target=26),
    "stopped": Figure("queen stopped -> gone", "SIGSTOP in mid-answer", target=26),
    "cut": Figure("network cut both ways -> gone", "mac's link down in mid-answer", target=26),
    "deaf": Figure("network cut to mac -> gone", "what blep sends is dropped", target=26),
    "dumb": Figure("network cut from mac -> gone", "what mac sends is dropped", target=26),
    "dropped": Figure("SSH connection killed, queen too -> gone", "mac's sshd child, then the queen", target=26),
    "hung": Figure("hive stopped -> hive and worker gone", "SIGSTOP of the hive in mid-answer", target=26),
    "hive": Figure("hive killed -> worker gone", "kill -9 of the hive in mid-answer", target=12),
}


def warm(lab: Lab, name: str) -> None:
    """First token and time per token with a warm worker, then, on a short line, many streams at once."""
    task = {"node": "mac", "prompt": "once upon a time", "model": f"file:{ENDLESS}", "temperature": 0}
    _streams(lab, 1, {**task, "max_tokens": 5})
    for _ in range(10):
        FIGURES[f"warm_{name}"].values += _streams(lab, 1, {**task, "max_tokens": 2})["first_s"]
    gap_s = _streams(lab, 1, {**task, "max_tokens": 500})["gaps_s"][0]
    FIGURES[f"token_{name}"].values.append(gap_s * 1_000_000)
    if name == "far":
        return
    many = _streams(lab, MANY, {**task, "max_tokens": 64})
    FIGURES[f"many_{name}"].values.append(many["tokens"] / many["whole_s"])


def _streams(lab: Lab, count: int, task: dict[str, object]) -> dict[str, Any]:
    done = lab.blep.run(
        [sys.executable, str(STREAMS), "http://127.0.0.1:8080", str(count), json.dumps(task)], within_s=300
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def streaming(lab: Lab) -> OnHost:
    """An answer that takes a while, from mac, its first tokens there."""
    answer = lab.blep.popen(long_answer())
    wait_until(lambda: len(answer.stdout_bytes) > 100, 120, f"tokens: {answer.stderr}")  # noqa: PLR2004
    return answer


def killed(lab: Lab) -> None:
    lab.blep.processes("queen-rbee")[0].kill()


def stopped(lab: Lab) -> None:
    lab.blep.processes("queen-rbee")[0].suspend()


def cut(lab: Lab) -> None:
    lab.cut(lab.mac)


def deaf(lab: Lab) -> None:
    lab.cut_one_way(lab.blep, lab.mac)


def dumb(lab: Lab) -> None:
    lab.cut_one_way(lab.mac, lab.blep)


def dropped(lab: Lab) -> None:
    for connection in lab.mac.processes("sshd: root"):
        connection.kill()
    killed(lab)


def hung(lab: Lab) -> None:
    lab.mac.processes("rbee-hive")[0].suspend()


def hive(lab: Lab) -> None:
    lab.mac.processes("rbee-hive")[0].kill()


DEATHS: tuple[Callable[[Lab], None], ...] = (killed, stopped, cut, deaf, dumb, dropped, hung, hive)


def die(lab: Lab, archive: Path, death: Callable[[Lab], None]) -> float:
    """Seconds from that death to the last process on mac."""
    prepare(lab, archive)
    queen = lab.blep.popen(["queen-rbee", "daemon"])
    queen.wait_for("queen is awake")
    streaming(lab)
    lab.mac.seen_alive("rbee-hive", "llm-worker-rbee")
    began_s = time.perf_counter()
    death(lab)
    programs = ("llm-worker-rbee",) if death is hive else PROGRAMS
    lab.mac.all_gone(GONE_S, *programs)
    return time.perf_counter() - began_s


def prepare(lab: Lab, archive: Path) -> None:
    """New hosts with rbee on mac."""
    lab.renew()
    name_hosts(lab)
    put_installation(lab.mac, archive)
    lab.mac.write("/root/.rbee/config.toml", METAL)
    put_endless(lab.mac)


def timed(lab: Lab) -> float:
    """Seconds of one `infer` to the first byte of its answer. All that it woke sleeps again when this returns."""
    began_s = time.perf_counter()
    answer = lab.blep.popen(["rbee-keeper", "infer", "--node", "mac", "--max-tokens", "1", "hello"])
    wait_until(lambda: answer.stdout_bytes or answer.process.poll() is not None, INSTALL_S, "a token")
    first_s = time.perf_counter() - began_s
    assert answer.wait() == 0, answer.stderr
    return first_s


def bare(lab: Lab, archive: Path, rounds: int) -> None:
    for number in range(rounds):
        lab.renew()
        name_hosts(lab)
        keeper(lab.blep, "node", "wheelhouse", "mac", within_s=300)
        FIGURES["bare"].values.append(timed(lab))
        if number == 0:
            save_installation(lab.mac, archive)
        for _ in range(3):
            FIGURES["off"].values.append(timed(lab))


def ways(lab: Lab, archive: Path) -> None:
    prepare(lab, archive)
    with standing_queen(lab):
        warm(lab, "ssh")
        keeper(lab.blep, "node", "stop", "mac")
        keeper(lab.blep, "node", "add", "mac", "--transport", "http", "--host", "10.77.0.13")
        warm(lab, "http")
    prepare(lab, archive)
    with slow_line(lab, lab.mac, FAR_MS), standing_queen(lab):
        warm(lab, "far")


def main() -> None:
    parser = argparse.ArgumentParser(description=re.sub(r"\n\n", "\n", __doc__ or ""))
    parser.add_argument("--rounds", type=int, default=3, help="of installing on a bare account")
    parser.add_argument("--deaths", type=int, default=20, help="of each kind; 0: none")
    parser.add_argument(
        "--only", choices=[death.__name__ for death in DEATHS], help="only this death, and nothing else"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if (reason := why_not_here()) is not None:
        parser.error(reason)
    facts = machine()
    with running_lab() as lab, TemporaryDirectory() as scratch:
        archive = Path(scratch) / "rbee.tar"
        bare(lab, archive, 1 if options.only else options.rounds)
        if not options.only:
            ways(lab, archive)
        for death in DEATHS:
            if options.only in {None, death.__name__}:
                for _ in range(options.deaths):
                    FIGURES[death.__name__].values.append(die(lab, archive, death))
    print_figures(facts, list(FIGURES.values()), as_json=options.json)


if __name__ == "__main__":
    main()

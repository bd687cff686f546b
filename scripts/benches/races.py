"""Random races of keepers that come, go and die, and what they leave behind.

Each round has a home of its own and the number of its dice: `--first N --rounds 1` repeats round N. Exit 1 when a
keeper that nobody touched gave no answer, another one left with a status it must not have, or anything stayed behind.
"""

import argparse
import os
import re
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from measuring import machine, machine_line, new_home
from tests.support.cluster import Cluster
from tests.support.races import race

GONE_WITHIN_S = 20.0
_PORTS = re.compile(r"(?:port |:)(\d{4,5})\b")


@dataclass
class Tally:
    """What all rounds together came to."""

    statuses: Counter[str] = field(default_factory=Counter)
    gone_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def run_round(number: int, tally: Tally) -> None:
    """One race; what is wrong with it goes to `tally.faults`, with the keepers' own words."""
    scale = {name: os.environ[name] for name in ("RBEE_TIME_SCALE",) if name in os.environ}
    with new_home(**scale) as cluster:
        ended = race(cluster, number)
        faults = []
        for keeper in ended:
            tally.statuses[f"{keeper.fate}: {keeper.status}"] += 1
            if not keeper.is_right:
                faults.append(f"a keeper that {keeper.fate} ended with {keeper.status}, answer {keeper.answer[:40]!r}")
        began_s = time.monotonic()
        faults += residue(cluster, {port for keeper in ended for port in _PORTS.findall(keeper.stderr)}, began_s, tally)
        if faults:
            said = "\n".join(f"--- {keeper.fate}: {keeper.status}\n{keeper.stderr}" for keeper in ended)
            tally.faults.append(f"round {number}: {'; '.join(faults)}\n{said}\n{last_log_lines(cluster.home)}")


def residue(cluster: Cluster, ports: set[str], began_s: float, tally: Tally) -> list[str]:
    """What is left of a round after all its keepers have ended."""
    faults = []
    try:
        cluster.all_gone(GONE_WITHIN_S)
        tally.gone_s.append(time.monotonic() - began_s)
        cluster.leaves_nothing()
    except AssertionError as error:
        faults.append(str(error))
    return faults + [f"port {port} is still held" for port in sorted(ports) if is_held(int(port))]


def is_held(port: int) -> bool:
    """Whether somebody listens there who is not of another home: other runs may share this machine."""
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            try:
                return connection.pid is None or "RBEE_HOME" not in psutil.Process(connection.pid).environ()
            except psutil.Error:
                continue
    return False


def last_log_lines(home: Path) -> str:
    """The end of every log of a home that is about to be deleted."""
    logs = sorted((home / "logs").glob("*"))
    return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs if log.is_file())


def main() -> None:
    """Race until the rounds or the time are over; print what came of it."""
    parser = argparse.ArgumentParser(prog="scripts/bench races", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="[200]")
    parser.add_argument("--first", type=int, default=0, help="number of the first round [0]")
    parser.add_argument("--for", type=float, default=float("inf"), dest="for_s", help="begin no round after so many s")
    options = parser.parse_args()
    print(machine_line(machine()), flush=True)
    tally, began_s = Tally(), time.monotonic()
    done = 0
    for number in range(options.first, options.first + options.rounds):
        if time.monotonic() - began_s > options.for_s:
            break
        known = len(tally.faults)
        run_round(number, tally)
        done += 1
        if tally.faults[known:]:
            print(tally.faults[-1], flush=True)
    print(f"{done} rounds, {sum(tally.statuses.values())} keepers, {time.monotonic() - began_s:.0f} s")
    for status, count in sorted(tally.statuses.items()):
        print(f"  {status}  {count} times")
    if tally.gone_s:
        print(
            f"everything gone after the last keeper: median {statistics.median(tally.gone_s):.2f} s, "
            f"longest {max(tally.gone_s):.2f} s"
        )
    print(f"{len(tally.faults)} rounds with a wrong status or something left behind")
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()

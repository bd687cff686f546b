"""Twenty starts and stops, and whether anything grows: files, processes, descriptors, threads.

From nothing: `infer hello` in one home; afterwards no process is left and, outside `logs/`, the same files as after the
first cycle. With a standing queen: a worker is started and stopped in each cycle, and queen and hive have as many
descriptors and threads after the last as after the third. Exit 1 when something grew.
"""

import argparse
import sys
import time

import httpx2
import psutil
from measuring import machine, machine_line, new_home
from tests.support.cluster import Cluster

_WARM_AFTER = 3
_SETTLED_S = 15.0
_POLL_S = 0.5


def from_nothing(cycles: int) -> list[str]:
    """Everything starts and ends in each cycle."""
    faults: list[str] = []
    with new_home() as cluster:
        first: set[str] = set()
        for number in range(cycles):
            keeper = cluster.keeper("infer", "hello")
            if keeper.process.returncode:
                faults.append(f"cycle {number} ended with {keeper.process.returncode}:\n{keeper.stderr}")
            left = cluster.processes()
            cluster.all_gone(_SETTLED_S)
            first = first or files(cluster)
            faults += [f"cycle {number}: pid {process.pid} outlived the keeper" for process in left]
        cluster.leaves_nothing()
        grown = sorted(files(cluster) ^ first)
        print(f"from nothing: {cycles} cycles, {len(first)} files outside logs after the first, differing: {grown}")
        return faults + [f"file that differs: {name}" for name in grown]


def files(cluster: Cluster) -> set[str]:
    """Every file of the home but the logs."""
    home = cluster.home
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and "logs" not in path.parts}


def standing(cycles: int) -> list[str]:
    """Queen and hive stay, a worker comes and goes."""
    with new_home() as cluster:
        cluster.standing_queen()
        faults, warm, now = [], "", ""
        for number in range(cycles):
            keeper = cluster.keeper("infer", "hello")
            if keeper.process.returncode:
                faults.append(f"cycle {number} ended with {keeper.process.returncode}:\n{keeper.stderr}")
            stop_workers(cluster)
            if number == _WARM_AFTER - 1:
                warm = settled(cluster, "")
        now = settled(cluster, warm)
        cluster.keeper("queen", "stop")
        cluster.leaves_nothing()
        print(f"standing queen: {cycles} cycles; after cycle {_WARM_AFTER}: {warm}; after the last: {now}")
        return faults + ([f"grew from {warm} to {now}"] if now != warm else [])


def stop_workers(cluster: Cluster) -> None:
    url = cluster.run_file("rbee-hive")["url"]
    headers = {"Authorization": f"Bearer {cluster.token}"}
    httpx2.post(f"{url}/v1/workers/stop-all", headers=headers, timeout=60, trust_env=False).raise_for_status()
    cluster.all_gone(_SETTLED_S, "llm-worker-rbee")


def settled(cluster: Cluster, expected: str) -> str:
    """Descriptors and threads of queen and hive, once as expected or unchanged for two seconds; idle ones may close."""
    now, same, deadline_s = "", 0, time.monotonic() + _SETTLED_S
    while time.monotonic() < deadline_s and (now != expected if expected else same * _POLL_S < 2):  # noqa: PLR2004
        time.sleep(_POLL_S)
        before, now = now, describe(cluster)
        same = same + 1 if now == before else 0
    return now


def describe(cluster: Cluster) -> str:
    def counts(process: psutil.Process) -> str:
        return f"{process.num_fds()} descriptors, {process.num_threads()} threads, {len(process.children())} children"

    return "; ".join(f"{name} {counts(cluster.only(name))}" for name in ("queen-rbee", "rbee-hive"))


def main() -> None:
    """Both kinds of cycle."""
    parser = argparse.ArgumentParser(prog="scripts/bench cycles", description=__doc__)
    parser.add_argument("--cycles", type=int, default=20, help="at least 4 [20]")
    options = parser.parse_args()
    cycles = max(_WARM_AFTER + 1, options.cycles)
    print(machine_line(machine()), flush=True)
    faults = from_nothing(cycles) + standing(cycles)
    print("\n".join(faults) or "nothing grew, nothing stayed")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()

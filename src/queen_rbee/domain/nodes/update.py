"""What an update of a node has to do there, and what it has to wait for. Pure.

A node is at rest when none of its workers computes, comes up, or is promised to a task: only then its hive may go.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from queen_rbee.domain.facts import Cluster
from queen_rbee.domain.nodes.probe_report import Installed
from rbee_shared.contracts.hives import HiveStatus
from rbee_shared.contracts.provisions import BuildKind, BuildRow
from rbee_shared.contracts.workers import WorkerRecord, WorkerState

_AT_WORK = frozenset({WorkerState.STARTING, WorkerState.LOADING, WorkerState.BUSY})
_PYTHON = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True)
class Engine:
    """What a worker build has to be made of to be used: llama-cpp-python's `version`, for `python` as in `3.11.2`."""

    version: str
    python: str

    def serves(self, build: BuildRow) -> bool:
        """Whether workers can run `build` as it is."""
        found = _PYTHON.match(self.python)
        return build.version == self.version and found is not None and build.python == f"cp{found[1]}{found[2]}"


def at_work(node: str, records: Iterable[WorkerRecord], cluster: Cluster) -> tuple[str, ...]:
    """Why the node is not at rest, a phrase for each reason. `records`: what its hive says of its workers now.

    A worker that is about to be ordered, or was only just, is one that its hive does not know of.
    """
    promised = {
        worker.id: f"worker {worker.id} is promised to a task"
        for worker in cluster.workers
        if worker.node == node and worker.in_use
    }
    working = {record.id: f"worker {record.id} is {record.state}" for record in records if record.state in _AT_WORK}
    loads = [f"a worker for {load.model_ref} is about to start" for load in cluster.loads if load.node == node]
    return (*(promised | working).values(), *loads)


def outdated_kinds(builds: Iterable[BuildRow], engine: Engine) -> tuple[BuildKind, ...]:
    """The kinds of worker builds that were made there, and of which none can be used any more."""
    rows = tuple(builds)
    made = {build.kind for build in rows if build.path is not None}
    usable = {build.kind for build in rows if engine.serves(build)}
    return tuple(sorted(made - usable))


def runs_other_code(hive: HiveStatus, installed: Installed, version: str) -> bool:
    """Whether a hive runs something else than what is installed, of which only `version` may be known to it.

    It is older than the installation, by the clock of its own machine, where that was renewed under its feet.
    """
    return hive.version != version or hive.started_at < installed.installed_at_unix

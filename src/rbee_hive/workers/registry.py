"""All workers of this hive, live and recently ended. In memory: a new hive starts with none, and ends what it finds.

Reading and changing it is synchronous, so no two requests can see it half changed.
"""

import hmac
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from rbee_hive.workers import logs as worker_logs
from rbee_hive.workers.lifecycle import Surroundings, Worker
from rbee_hive.workers.order import WorkerOrder
from rbee_hive.workers.orphans import end_orphans, find_orphans
from rbee_shared.contracts.workers import WorkerRecord
from rbee_shared.errors import ForbiddenError, InvalidApiKeyError, WorkerNotFoundError
from rbee_shared.narration import Narrator


class WorkerRegistry:
    """Made by `open`, which ends every worker on leaving."""

    def __init__(self, group: TaskGroup, around: Surroundings, *, kept: int, kept_s: float) -> None:
        self._group = group
        self._around = around
        self._kept = kept
        self._kept_s = kept_s
        self._workers: dict[str, Worker] = {}
        self._by_request: dict[str, str] = {}
        self._past_crashes: Counter[str] = Counter()
        self._past_restarts = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, around: Surroundings, *, kept: int, kept_s: float) -> AsyncGenerator["WorkerRegistry"]:
        """A registry without workers; those that live on leaving are killed. A dead hive's are ended meanwhile."""
        orphans = await find_orphans(around.home)
        async with anyio.create_task_group() as group:
            narrator = Narrator("hive", around.hub.publish, node=around.node)
            group.start_soon(end_orphans, around.home, orphans, around.clocks, narrator)
            registry = cls(group, around, kept=kept, kept_s=kept_s)
            try:
                yield registry
            finally:
                registry.kill_all()
                group.cancel_scope.cancel()

    def known_request(self, request_id: str | None) -> Worker | None:
        """The worker that was spawned for that request."""
        return self._workers.get(self._by_request.get(request_id or "", ""))

    def spawn(self, order: WorkerOrder, request_id: str | None) -> Worker:
        """Start a worker; it is there at once, in `starting`."""
        self._prune()
        worker = Worker(order, self._around)
        self._workers[order.worker_id] = worker
        if request_id:
            self._by_request[request_id] = order.worker_id
        self._group.start_soon(self._run, worker, name=order.worker_id)
        return worker

    async def _run(self, worker: Worker) -> None:
        await worker.run()
        live = {other.order.worker_id for other in self.live()}
        await anyio.to_thread.run_sync(worker_logs.prune, self._around.home.logs, live)

    def get(self, worker_id: str) -> Worker:
        """That worker.

        Raises:
            WorkerNotFoundError: it was never here, or ended a while ago.
        """
        try:
            return self._workers[worker_id]
        except KeyError:
            raise WorkerNotFoundError(f"this hive has no worker {worker_id}") from None

    def calling(self, worker_id: str, key: str) -> Worker:
        """The worker that calls, proven by its own key.

        Raises:
            ForbiddenError: no live worker of that id is expected, or the key is another worker's.
            InvalidApiKeyError: the key is nobody's.
        """
        worker = self._workers.get(worker_id)
        if worker is None or not worker.is_live:
            raise ForbiddenError(f"no worker {worker_id} is expected here")
        if _same(worker.order.api_key, key):
            return worker
        if any(_same(other.order.api_key, key) for other in self._workers.values()):
            raise ForbiddenError(f"that key is not worker {worker_id}'s")
        raise InvalidApiKeyError("that key is no worker's of this hive")

    def live(self) -> tuple[Worker, ...]:
        return tuple(worker for worker in self._workers.values() if worker.is_live)

    def records(self) -> tuple[WorkerRecord, ...]:
        """Live and recently ended workers, oldest first."""
        self._prune()
        return tuple(worker.record() for worker in self._workers.values())

    async def stop(self, workers: Iterable[Worker]) -> None:
        """Stop them in parallel; returns when all are gone and their memory was looked at."""
        chosen = tuple(workers)
        for worker in chosen:
            worker.order_stop()
        for worker in chosen:
            await worker.ended.wait()

    def crashes(self) -> Counter[str]:
        """How often workers died that nobody had told to, by model reference, since this hive began."""
        total = Counter(self._past_crashes)
        for worker in self._workers.values():
            total[worker.order.model_ref] += worker.crash_count
        return +total

    def restarts(self) -> int:
        """How often a worker was started again, since this hive began."""
        return self._past_restarts + sum(worker.restart_count for worker in self._workers.values())

    def kill_all(self) -> None:
        for worker in self.live():
            worker.kill()

    def _prune(self) -> None:
        ended = [worker for worker in self._workers.values() if worker.ended_at_unix is not None]
        too_old = time.time() - self._kept_s
        gone = [w for w in ended if (w.ended_at_unix or 0) < too_old] + ended[: -self._kept]
        for worker in gone:
            if self._workers.pop(worker.order.worker_id, None) is not None:
                self._past_crashes[worker.order.model_ref] += worker.crash_count
                self._past_restarts += worker.restart_count
        self._by_request = {key: id_ for key, id_ in self._by_request.items() if id_ in self._workers}


def _same(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode(), right.encode())

"""All tasks the queen knows: the unfinished ones, and the latest finished ones for whoever still wants their events."""

from collections.abc import Iterator

from queen_rbee.task import Task
from rbee_shared.contracts.tasks import TaskState
from rbee_shared.errors import TaskNotFoundError
from rbee_shared.narration import Narration


class TaskRegistry:
    """Bounded: finished tasks are forgotten, oldest first, beyond a number and beyond the bytes of all logs."""

    def __init__(self, *, finished_kept: int, logs_bytes: int) -> None:
        self._tasks: dict[str, Task] = {}
        self._finished_kept = finished_kept
        self._logs_bytes = logs_bytes

    def add(self, task: Task) -> None:
        self._tasks[task.id] = task
        self._forget()

    def get(self, task_id: str) -> Task:
        """The task of that id.

        Raises:
            TaskNotFoundError: it is not known, or no longer.
        """
        task = self._tasks.get(task_id)
        if task is None:
            raise TaskNotFoundError(f"there is no task {task_id[:64]!r}")
        return task

    def newest_first(self) -> list[Task]:
        return list(reversed(self._tasks.values()))

    def unfinished(self) -> Iterator[Task]:
        return (task for task in self._tasks.values() if not task.is_finished)

    def any_unfinished(self) -> bool:
        return any(True for _ in self.unfinished())

    def waiting_models(self) -> list[str]:
        """The model of every task that has not begun."""
        return [task.wish.model_ref for task in self.unfinished() if task.state is not TaskState.RUNNING]

    def route(self, narration: Narration) -> bool:
        """Show a line from another program to the tasks that it works for; whether there was one."""
        if narration.correlation_id is None:
            return False
        concerned = [task for task in self.unfinished() if task.correlation_id == narration.correlation_id]
        for task in concerned:
            task.hear(narration)
        return bool(concerned)

    def _forget(self) -> None:
        finished = [task for task in self._tasks.values() if task.is_finished]
        size = sum(task.log.size_bytes for task in self._tasks.values())
        while finished and (len(finished) > self._finished_kept or size > self._logs_bytes):
            oldest = finished.pop(0)
            size -= oldest.log.size_bytes
            del self._tasks[oldest.id]

"""Which reader gets which line: each line once, by the task that it belongs to or by the holds of a leaving queen."""

from dataclasses import dataclass

from queen_rbee.errands import Errands
from queen_rbee.holds import Holds
from queen_rbee.task_registry import TaskRegistry
from rbee_shared.narration import Narration, Sink


@dataclass(frozen=True)
class Voices:
    """`publish` says a line to the whole cluster; every line goes there as well."""

    publish: Sink
    tasks: TaskRegistry
    errands: Errands
    holds: Holds

    def speak(self, narration: Narration) -> None:
        """The queen's own line that belongs to no task."""
        self.publish(narration)
        self.holds.show(narration)

    def hear(self, node: str, narration: Narration) -> None:
        """A line of that node's hive or of its workers."""
        line = narration.on_node(node)
        if self.tasks.route(line) or self.errands.route(line):
            self.publish(line)
        else:
            self.speak(line)

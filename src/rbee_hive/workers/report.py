"""What a worker's process last said of itself, in its heartbeats."""

import time
from dataclasses import dataclass

from rbee_shared.contracts.workers import MemoryParts, WorkerHeartbeat


@dataclass
class Report:
    """Times are UNIX seconds."""

    slots_total: int
    slots_busy: int = 0
    heartbeat_unix: float | None = None
    activity_unix: float = 0.0
    resident_bytes: int | None = None
    memory: MemoryParts | None = None

    def take(self, beat: WorkerHeartbeat) -> None:
        """Note a heartbeat; what it does not say is not taken back."""
        self.heartbeat_unix = time.time()
        self.slots_total = beat.slots_total
        self.resident_bytes = beat.rss_bytes or self.resident_bytes
        self.memory = beat.memory or self.memory
        self.activity_unix = max(self.activity_unix, beat.last_activity or 0.0)

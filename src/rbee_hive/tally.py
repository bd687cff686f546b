"""What has happened at this hive since its start, counted. On the event loop only; `metrics` shows it."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rbee_shared.errors import InternalError, RbeeError


@dataclass
class Tally:
    """Counts only ever grow. Outcomes: `DONE`, `CANCELLED`, or the code of the error."""

    download_bytes: int = 0
    downloads: Counter[str] = field(default_factory=Counter)
    builds: Counter[str] = field(default_factory=Counter)
    workers_started: int = 0

    @contextmanager
    def counting(self, outcomes: Counter[str]) -> Generator[None]:
        """Count how the block ends."""
        outcome = "CANCELLED"  # unless it ends otherwise
        try:
            yield
            outcome = "DONE"
        except RbeeError as error:
            outcome = error.code
            raise
        except Exception:
            outcome = InternalError.code
            raise
        finally:
            outcomes[outcome] += 1

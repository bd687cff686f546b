"""The one line that a parent writes to a child's stdin, and the end-of-file that follows when the parent is gone.

Only with `--parent stdin`. Without it stdin is never touched, so that `/dev/null`, `&`, cron and systemd all work.
"""

import json
import os
import select
import time
from dataclasses import asdict, dataclass, fields, replace

from rbee_shared.errors import InvalidRequestError
from rbee_shared.process_identity import is_running, this_process

MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Handshake:
    """What a child needs from its parent and nobody else may see. Absent fields do not apply to that edge."""

    parent_pid: int
    parent_create_time: float
    correlation_id: str | None = None
    token: str | None = None
    epoch: int | None = None
    queen_url: str | None = None
    queen_id: str | None = None
    queen_token: str | None = None
    hive_url: str | None = None
    api_key: str | None = None
    ephemeral: bool = False

    @classmethod
    def from_afar(cls, **facts: str | float | bool | None) -> "Handshake":
        """A handshake whose parent is on another machine: no process here stands for it."""
        return cls(parent_pid=0, parent_create_time=0.0, **facts)  # type: ignore[arg-type]

    @classmethod
    def from_here(cls, **facts: str | float | bool | None) -> "Handshake":
        """A handshake whose parent is this process."""
        pid, create_time = this_process()
        return cls(parent_pid=pid, parent_create_time=create_time, **facts)  # type: ignore[arg-type]

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @property
    def parent_alive(self) -> bool:
        """Whether the very process that wrote this still runs."""
        return is_running(self.parent_pid, self.parent_create_time)


def read_handshake(timeout_s: float, descriptor: int = 0) -> Handshake:
    """Read the line. Blocking: call it before the event loop starts.

    Raises:
        InvalidRequestError: nothing came in time, or what came is no handshake.
    """
    deadline, data = time.monotonic() + timeout_s, b""
    while not data.endswith(b"\n"):
        byte = _next_byte(descriptor, deadline - time.monotonic())
        if not byte or len(data) >= MAX_BYTES:
            raise InvalidRequestError("--parent stdin: no handshake line came on stdin")
        data += byte
    return _parse(data)


def _next_byte(descriptor: int, timeout_s: float) -> bytes:
    """One byte, since what follows the line belongs to the lifeline; empty at the end, or when none comes in time."""
    try:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, timeout_s))
        return os.read(descriptor, 1) if ready else b""
    except OSError:  # closed
        return b""


def _parse(data: bytes) -> Handshake:
    known = {field.name for field in fields(Handshake)}
    try:
        facts = json.loads(data)
        handshake = Handshake(**{name: value for name, value in facts.items() if name in known})
        return replace(
            handshake,
            parent_pid=int(handshake.parent_pid),
            parent_create_time=float(handshake.parent_create_time),
        )
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        raise InvalidRequestError("--parent stdin: the line on stdin is no handshake") from None

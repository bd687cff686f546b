"""Every clock of rbee, in seconds, in one place. Each can be set; one factor scales them all, for tests.

Leases are measured with `boot_time_s`, which goes on while the machine sleeps: a laptop that was closed for an hour
must find its lease expired, not fresh.
"""

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields

from rbee_shared.errors import InvalidRequestError

_PREFIX = "RBEE_CLOCK_"
# a pause or a wait of nothing makes sense there; a beat or a lease of nothing would spin or end at once
_MAY_BE_ZERO = frozenset(
    {"worker_drain_s", "hive_drain_s", "queen_drain_s", "keeper_drain_s", "parent_lost_drain_s", "idle_worker_s",
     "memory_back_s", "hold_grace_s", "provision_grace_s", "silence_s"}
)  # fmt: skip


@dataclass(frozen=True)
class Clocks:
    """Defaults are DESIGN's table of clocks; `RBEE_CLOCK_<NAME>` or `[clocks]` in config.toml replaces one."""

    heartbeat_s: float = 2.0
    suspect_s: float = 6.0
    lost_s: float = 10.0
    hive_lease_s: float = 15.0
    adopted_hive_lease_s: float = 60.0
    worker_lease_s: float = 10.0
    handshake_s: float = 10.0
    daemon_start_s: float = 30.0
    worker_bind_s: float = 30.0
    load_stall_s: float = 300.0
    engine_stall_s: float = 60.0
    restart_delay_s: float = 1.0
    restart_reset_s: float = 600.0
    build_silence_s: float = 600.0
    build_s: float = 3600.0
    worker_drain_s: float = 5.0
    hive_drain_s: float = 10.0
    queen_drain_s: float = 20.0
    keeper_drain_s: float = 25.0
    parent_lost_drain_s: float = 0.5
    idle_worker_s: float = 300.0
    memory_back_s: float = 5.0
    memory_poll_s: float = 0.25
    sse_ping_s: float = 10.0
    connect_s: float = 5.0
    ssh_connect_s: float = 5.0
    ssh_login_s: float = 10.0
    ssh_keepalive_s: float = 5.0
    control_call_s: float = 10.0
    hub_s: float = 30.0
    download_stall_s: float = 60.0
    hold_grace_s: float = 2.0
    provision_grace_s: float = 2.0
    silence_s: float = 1.5
    slow_client_s: float = 60.0
    header_s: float = 10.0
    body_s: float = 10.0

    @classmethod
    def load(cls, table: Mapping[str, object], environment: Mapping[str, str] = os.environ) -> "Clocks":
        """Read the clocks from environment, config.toml's `[clocks]` and defaults, scaled by `RBEE_TIME_SCALE`."""
        scale = _positive("RBEE_TIME_SCALE", environment.get("RBEE_TIME_SCALE", "1"))
        known = {field.name: field.default for field in fields(cls)}
        if unknown := sorted(set(table) - set(known)):
            raise InvalidRequestError(f"config.toml names unknown clocks: {', '.join(unknown)}")
        variables = {f"{_PREFIX}{name.upper()}" for name in known}
        if unknown := sorted(name for name in environment if name.startswith(_PREFIX) and name not in variables):
            raise InvalidRequestError(f"the environment names unknown clocks: {', '.join(unknown)}")
        values = {}
        for name, default in known.items():
            chosen = environment.get(f"{_PREFIX}{name.upper()}", table.get(name, default))
            values[name] = _positive(name, chosen, or_zero=name in _MAY_BE_ZERO) * scale
        return cls(**values)


def _positive(name: str, value: object, *, or_zero: bool = False) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf") or (number == 0 and not or_zero):
        raise InvalidRequestError(
            f"{name} must be a positive number, got {value!r}",
            hint=f"Correct it in [clocks] of config.toml, or in {_PREFIX}… or RBEE_TIME_SCALE in the environment.",
        )
    return number


def boot_time_s() -> float:
    """Seconds on a clock that never jumps and counts sleep."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.clock_gettime(time.CLOCK_MONOTONIC_RAW) if sys.platform == "darwin" else time.monotonic()

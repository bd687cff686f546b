"""A hive that this queen has started, on whichever machine it runs."""

from typing import Protocol

from rbee_shared.child_voice import Listening
from rbee_shared.errors import RbeeError


class HiveProcess(Protocol):
    """What `rbee_shared.child.Child` is for a hive of this machine, and `nodes.remote_hive` for one of another."""

    @property
    def listening(self) -> Listening | None:
        """Where it listens, in its own words, once it has said so."""

    @property
    def returncode(self) -> int | None:
        """None while it runs, as far as is known."""

    async def wait_listening(self, timeout_s: float) -> Listening:
        """Wait until it has bound its port; raises what kept it from that."""

    async def wait_heard(self, lines: int, timeout_s: float) -> None:
        """Wait until its first `lines` lines have been heard; give up quietly after `timeout_s`."""

    async def wait_exit(self) -> int:
        """Wait until it is gone."""

    def death(self) -> RbeeError:
        """Why it died."""

    async def terminate(self, grace_s: float) -> None:
        """TERM, then KILL after `grace_s`: for one that has been asked in its own way already."""

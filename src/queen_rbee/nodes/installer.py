"""Puts rbee on a node, and takes it away again: the order, the upload, and what became of it.

Guarantees: the version there before is usable until the new one was tried out on that machine, and after every failure;
when this queen dies, or the cable is pulled out, what she began there ends within `SILENCE_S`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pydantic import ValidationError

from queen_rbee.domain.nodes.probe_report import Installed
from queen_rbee.nodes.far import install as far_install
from queen_rbee.nodes.far import uninstall as far_uninstall
from queen_rbee.nodes.far_program import SILENCE_S, FarProgram, Site, nothing
from queen_rbee.nodes.payload import Payload
from rbee_shared.contracts.base import Wire
from rbee_shared.errors import InstallFailedError
from rbee_shared.units import format_bytes

INSTALL_S = 900.0
UNINSTALL_S = 120.0
_WAIT_S = 60.0


class Removed(Wire):
    """`left`: names in the home that rbee has not made, or was to keep."""

    freed_bytes: int
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class Version:
    """The parts of an installed version that others start. They name the version, and not the link to it."""

    directory: str

    @classmethod
    def of(cls, home: str, installed: Installed) -> "Version":
        return cls(f"{home}/versions/{installed.id}")

    @property
    def python(self) -> str:
        return f"{self.directory}/bin/python"

    def argv(self, program: str) -> list[str]:
        """What starts `program` there: the interpreter first, for a script's first line cannot name every path."""
        return [self.python, f"{self.directory}/bin/{program}"]


async def install(
    site: Site, payload: Payload, tell: Callable[[str], None], *, token: str | None, limit_s: float = INSTALL_S
) -> Installed:
    """Make `payload` the current version there. `token`: of this cluster, for hives that an operator starts there.

    Raises:
        DiskFullError, InstallFailedError: why not; what was there before still is.
        HiveOwnedError: that home belongs to another cluster.
        SshUnreachableError, RequestTimeoutError: nobody knows; the next look will say.
    """
    order = partial(
        far_install.Order,
        home=site.home,
        version=payload.version,
        files={part.name: [part.size_bytes, part.sha256] for part in payload.parts},
        wheel=payload.wheel,
        pip=payload.pip,
        lock=payload.lock,
        offline=payload.offline,
        token=token,
        wait_s=_WAIT_S,
        silence_s=SILENCE_S,
    )
    tell(f"sending {format_bytes(payload.size_bytes)}")
    done = await FarProgram("install", order).run(site, payload.tar(), tell, limit_s=limit_s)
    try:
        return Installed.model_validate(done)
    except ValidationError:
        raise InstallFailedError(f"{site.node}: the installer said something that this queen does not know") from None


async def uninstall(site: Site, tell: Callable[[str], None], *, token: str | None, keep_models: bool) -> Removed:
    """Remove rbee there; its hive must have ended. `token`: of this cluster.

    Raises:
        InstallFailedError: something of it runs, or no queen has installed it there.
        HiveOwnedError: that home belongs to another cluster.
        SshUnreachableError, RequestTimeoutError: nobody knows; it can be done again.
    """
    order = partial(
        far_uninstall.Order, home=site.home, token=token, keep_models=keep_models, wait_s=_WAIT_S, silence_s=SILENCE_S
    )
    done = await FarProgram("uninstall", order).run(site, nothing(), tell, limit_s=UNINSTALL_S)
    try:
        return Removed.model_validate(done)
    except ValidationError:
        raise InstallFailedError(f"{site.node}: it said something that this queen does not know") from None

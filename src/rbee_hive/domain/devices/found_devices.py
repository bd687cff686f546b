"""The devices of one kind as they were found: what orders may name, what they have, what is wrong."""

from dataclasses import dataclass

from rbee_hive.domain.devices.device_choice import DeviceName
from rbee_shared.contracts.nodes import GpuDevice


@dataclass(frozen=True)
class Found:
    """Devices of one kind. `names` and `gpus` go together, but a device that fails now has a name and no facts."""

    names: tuple[DeviceName, ...] = ()
    gpus: tuple[GpuDevice, ...] = ()
    problems: tuple[str, ...] = ()

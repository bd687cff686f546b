"""All devices of this node, detected or declared: what orders may name, what they have, what is free now.

Guarantees: an answer within 2 s, whatever hangs; what fails is a problem told, and never ends the hive. Any number of
callers at once cost one look.
"""

import logging
import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from rbee_hive.devices.cpu import Processor
from rbee_hive.devices.metal import AppleMachine, Programs
from rbee_hive.devices.nvidia import NvidiaCards
from rbee_hive.domain.devices.cpu_facts import cpu_device, cpu_free_bytes
from rbee_hive.domain.devices.declaration import DeclaredDevice
from rbee_hive.domain.devices.declared_devices import declared_gpus, declared_names
from rbee_hive.domain.devices.device_choice import CPU, DeviceName
from rbee_hive.domain.devices.found_devices import Found
from rbee_shared.contracts.nodes import CpuDevice, DeviceLoad, GpuDevice
from rbee_shared.errors import BackendUnavailableError
from rbee_shared.machine_limits import Memory

_LOG = logging.getLogger("rbee.hive.devices")
_ANSWER_S = 1.8
_LOADS_S = 0.5
_START_S = 0.5


@dataclass(frozen=True)
class NodeFacts:
    """What this node has, at one moment."""

    cpu: CpuDevice
    gpus: tuple[GpuDevice, ...]
    problems: tuple[str, ...]


class NodeDevices:
    """Made by `open`. `held_bytes`, where it is asked for: what our workers hold, by device id."""

    def __init__(self, declared: Sequence[DeclaredDevice], processor: Processor, nvidia: NvidiaCards) -> None:
        self._declared = tuple(declared)
        self._processor = processor
        self._nvidia = nvidia
        self._apple = AppleMachine(Programs()) if sys.platform == "darwin" else None
        self._gpu_names: tuple[DeviceName, ...] = ()
        self._told: tuple[str, ...] = ()

    @classmethod
    @asynccontextmanager
    async def open(cls, declared: Sequence[DeclaredDevice]) -> AsyncGenerator["NodeDevices"]:
        """Devices that have been looked for; a driver that is slow to start is waited for in the background."""
        listed = os.environ.get("CUDA_VISIBLE_DEVICES")
        processor = await Processor.first_look()
        async with NvidiaCards.open(listed) as nvidia, anyio.create_task_group() as group:
            devices = cls(declared, processor, nvidia)
            await devices._facts({}, _START_S)
            group.start_soon(devices._look_again_when_started)
            yield devices
            group.cancel_scope.cancel()

    def present(self) -> tuple[DeviceName, ...]:
        """What an order may name: the graphics devices by index, then the processor."""
        return declared_names(self._declared) or (*self._gpu_names, CPU)

    async def facts(self, held_bytes: Mapping[str, int]) -> NodeFacts:
        """Everything that can be found out within 2 s."""
        return await self._facts(held_bytes, _ANSWER_S)

    async def free_bytes(self, device: DeviceName, held_bytes: Mapping[str, int]) -> int:
        """What that device has free now.

        Raises:
            BackendUnavailableError: it is there, and does not tell.
        """
        deadline_s = anyio.current_time() + _ANSWER_S
        ram = (await self._processor.load(deadline_s)).ram
        if device == CPU:
            return cpu_free_bytes(ram, self._declared, held_bytes)
        found = await self._gpus(ram, held_bytes, deadline_s)
        for gpu in found.gpus:
            if gpu.id == device.id:
                return gpu.free_bytes
        why = "; ".join(found.problems) or "it is gone"
        raise BackendUnavailableError(f"{device.id} does not tell what it has free: {why}")

    async def loads(self, held_bytes: Mapping[str, int]) -> tuple[DeviceLoad, ...]:
        """What changes between two heartbeats: cheap, and never raises. A device that does not tell is left out."""
        try:
            return await self._loads(held_bytes, anyio.current_time() + _LOADS_S)
        except Exception:  # noqa: BLE001 - the heartbeat must go on without them; logged
            _LOG.exception("the loads of the devices could not be read")
            return ()

    async def _facts(self, held_bytes: Mapping[str, int], within_s: float) -> NodeFacts:
        deadline_s = anyio.current_time() + within_s
        load = await self._processor.load(deadline_s)
        looking = self._processor.begin()  # beside the graphics devices, not after them
        found = await self._gpus(load.ram, held_bytes, deadline_s)
        own = await self._processor.end(looking, load, deadline_s)
        problems = (*own.problems, *found.problems)
        if problems != self._told:
            _LOG.warning("devices: %s", "; ".join(problems) or "nothing is wrong any more")
            self._told = problems
        processor = cpu_device(own.facts, own.load, own.temperature_c, self._declared, held_bytes)
        return NodeFacts(processor, found.gpus, problems)

    async def _gpus(self, ram: Memory, held_bytes: Mapping[str, int], deadline_s: float) -> Found:
        if self._declared:
            return Found(gpus=declared_gpus(self._declared, held_bytes, ram.free_bytes))
        nvidia = await self._nvidia.read(ram, deadline_s)
        apple = await self._apple.read(ram, deadline_s) if self._apple else Found()
        return self._noted(nvidia, apple)

    async def _loads(self, held_bytes: Mapping[str, int], deadline_s: float) -> tuple[DeviceLoad, ...]:
        load = await self._processor.load(deadline_s)
        if self._declared:
            gpus = declared_gpus(self._declared, held_bytes, load.ram.free_bytes)
        else:  # asks only those that are known: looking for more may load a kernel module or start a program
            nvidia = await self._nvidia.read(load.ram, deadline_s) if self._nvidia.is_running else Found()
            gpus = self._noted(nvidia, self._apple.last(load.ram) if self._apple else Found()).gpus
        free_bytes = cpu_free_bytes(load.ram, self._declared, held_bytes)
        own = DeviceLoad(id=CPU.id, free_bytes=free_bytes, utilisation_pct=load.utilisation_pct)
        return (
            own,
            *(DeviceLoad(id=gpu.id, free_bytes=gpu.free_bytes, utilisation_pct=gpu.utilisation_pct) for gpu in gpus),
        )

    def _noted(self, nvidia: Found, apple: Found) -> Found:
        self._gpu_names = nvidia.names + apple.names
        return Found(self._gpu_names, nvidia.gpus + apple.gpus, nvidia.problems + apple.problems)

    async def _look_again_when_started(self) -> None:
        while self._nvidia.is_starting:
            await self._nvidia.wait_started()
            await self.facts({})

"""Looks at this machine's devices through `NodeDevices`, at the word of whoever started it: a line in, a line out.

`look N`: N callers at once ask for all facts; `loads`; `free ID`; `present`. Each answer is JSON with `took_s`. It ends
with its stdin. Declared devices come as JSON in the first argument.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
from pydantic import TypeAdapter

from rbee_hive.devices.detect import NodeDevices, NodeFacts
from rbee_hive.domain.devices.declaration import DeclaredDevice
from rbee_hive.domain.devices.device_choice import choose_device
from rbee_shared.errors import RbeeError


async def main(declared: tuple[DeclaredDevice, ...]) -> None:
    async with NodeDevices.open(declared) as devices:
        say({"open": True})
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            command, *arguments = line.split()
            began_s = anyio.current_time()
            try:
                answer = await COMMANDS[command](devices, *arguments)
            except RbeeError as error:
                answer = {"error": error.body()}
            say({**answer, "took_s": anyio.current_time() - began_s})
    say({"closed": True})


async def look(devices: NodeDevices, callers: str) -> dict[str, Any]:
    found: list[NodeFacts] = []

    async def one() -> None:
        found.append(await devices.facts({}))

    async with anyio.create_task_group() as group:
        for _ in range(int(callers)):
            group.start_soon(one)
    first = found[0]
    gpus = [gpu.model_dump() for gpu in first.gpus]
    return {"cpu": first.cpu.model_dump(), "gpus": gpus, "problems": first.problems, "answers": len(found)}


async def loads(devices: NodeDevices) -> dict[str, Any]:
    return {"loads": [load.model_dump() for load in await devices.loads({})]}


async def free(devices: NodeDevices, device: str) -> dict[str, Any]:
    return {"free_bytes": await devices.free_bytes(choose_device(None, device, devices.present()), {})}


async def present(devices: NodeDevices) -> dict[str, Any]:
    return {
        "present": [
            {"id": name.id, "device": name.worker_device, "environment": dict(name.environment)}
            for name in devices.present()
        ]
    }


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


COMMANDS: dict[str, Callable[..., Any]] = {"look": look, "loads": loads, "free": free, "present": present}

if __name__ == "__main__":
    anyio.run(main, TypeAdapter(tuple[DeclaredDevice, ...]).validate_json(sys.argv[1]))

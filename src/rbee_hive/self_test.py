"""Whether this node can work: the embedded model decodes one token on every device, and the disk takes a file.

One at a time, one device after the other, each within a minute. Failures are results, not errors.
"""

import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from rbee_hive.domain.devices.device_choice import DeviceName
from rbee_hive.services import Services
from rbee_hive.workers.order import WorkerOrder
from rbee_hive.workers.trial import FirstToken, first_token
from rbee_shared.contracts.hives import DecodedToken, DeviceTest, DiskTest, SelfTest
from rbee_shared.contracts.provisions import BuildRow
from rbee_shared.errors import LoadingTimeoutError, NotReadyError, RbeeError, ShuttingDownError
from rbee_shared.ids import new_secret, new_worker_id
from rbee_shared.narration import correlation_id

_MODEL = "builtin:storyteller"
_DEVICE_S = 60.0
_FILE_BYTES = 1024 * 1024
_N_CTX, _SLOTS = 512, 1
T = TypeVar("T")


async def self_test(services: Services) -> SelfTest:
    """Test everything.

    Raises:
        NotReadyError: a test is running already.
        ShuttingDownError, QueenLostError: this hive takes no new work, or ends meanwhile.
    """
    services.require_taking_work()
    try:
        services.testing.acquire_nowait()
    except anyio.WouldBlock:
        raise NotReadyError("a self-test is running on this node already", hint="Ask again when it is done.") from None
    try:
        return await _unless_stopping(services, lambda: _test(services))
    finally:
        services.testing.release()


async def _test(services: Services) -> SelfTest:
    disk = await anyio.to_thread.run_sync(_disk, services.library.directory)
    devices, decoded = [], []
    for device in services.devices.present():
        test, token = await _device(services, device)
        devices.append(test)
        decoded += [token] if token is not None else []
    ok = disk.ok and all(test.ok for test in devices)
    return SelfTest(ok=ok, devices=tuple(devices), disk=disk, decoded=tuple(decoded))


async def _device(services: Services, device: DeviceName) -> tuple[DeviceTest, DecodedToken | None]:
    backend, build_id = device.backend, None
    try:
        build = await services.build_for(device)
        build_id = build.id
        token = await _token(services, device, build)
    except RbeeError as error:
        return DeviceTest(id=device.id, backend=backend, build=build_id, ok=False, error=error.body()), None
    seconds = round(token.seconds, 3)
    test = DeviceTest(id=device.id, backend=backend, build=build.id, ok=True, seconds=seconds)
    return test, DecodedToken(device=device.id, backend=backend, build=build.id, text=token.text)


async def _token(services: Services, device: DeviceName, build: BuildRow) -> FirstToken:
    model = await services.library.ready(_MODEL)
    order = _order(device, build, model.local_path or "")
    with anyio.move_on_after(_DEVICE_S):
        return await first_token(order, services.daemon.home, services.daemon.clocks, services.client)
    raise LoadingTimeoutError(f"no token came from {device.id} within {_DEVICE_S:.0f} s")


def _order(device: DeviceName, build: BuildRow, model_path: str) -> WorkerOrder:
    return WorkerOrder(
        worker_id=new_worker_id(device.backend),
        api_key=new_secret(),
        model_ref=_MODEL,
        model_path=model_path,
        backend=device.backend,
        device=device.id,
        runs_on=(device.worker_backend, device.worker_device),
        port=0,
        n_ctx=_N_CTX,
        slots=_SLOTS,
        correlation_id=correlation_id.get(),
        engine_path=build.path,
        extra_env=dict(device.environment),
    )


def _disk(directory: Path) -> DiskTest:
    """Writes: a full or read-only disk, and a quota, show only then."""
    error = None
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(_FILE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as failure:
        error = f"a file cannot be written in {directory}: {failure.strerror}"
    try:
        free_bytes = shutil.disk_usage(directory).free
    except OSError:  # the directory is gone, which is told already
        free_bytes = 0
    return DiskTest(models_dir=str(directory), free_bytes=free_bytes, ok=error is None, error=error)


async def _unless_stopping(services: Services, work: Callable[[], Awaitable[T]]) -> T:
    """What `work` gives; given up when this hive stops, so that it does not wait for it.

    Raises:
        ShuttingDownError: it does.
    """
    done: list[T] = []

    async def give_up(scope: anyio.CancelScope) -> None:
        await services.daemon.stopping.requested.wait()
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(give_up, group.cancel_scope)
        done.append(await work())
        group.cancel_scope.cancel()
    if not done:
        raise ShuttingDownError(f"the hive {services.settings.name} shut down before the test was done")
    return done[0]

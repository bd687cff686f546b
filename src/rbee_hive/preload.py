"""Loads the models that the settings name when the hive starts: fetched if need be, each on its first device."""

from rbee_hive.services import Services
from rbee_shared.contracts.models import ModelProvisionRequest
from rbee_shared.contracts.provisions import WorkerProvisionRequest
from rbee_shared.contracts.workers import SpawnRequest
from rbee_shared.errors import RbeeError


async def preload(services: Services) -> None:
    """One after the other, so that each sees the room that the one before has left. A failure is told, not fatal."""
    for model in services.settings.preload:
        try:
            await _load(services, model)
        except RbeeError as error:
            services.narrator.tell(
                "preload", f"{model} is not loaded: {error.message} ({error.code})", cute="🫗", level="warning"
            )


async def _load(services: Services, model: str) -> None:
    device = services.device(None, None)
    services.narrator.tell("preload", f"loading {model} on {device.id.upper()}, as the settings want it", cute="🔥")
    for work in (
        await services.provision_model(ModelProvisionRequest(model=model)),
        await services.provision_build(WorkerProvisionRequest(kind=device.worker_backend)),
    ):
        await work.wait()
    worker = await services.spawn(SpawnRequest(model=model, device=device.id))
    await worker.settled.wait()
    if worker.error is not None:
        raise worker.error

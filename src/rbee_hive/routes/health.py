"""`GET /health`: open to everybody, so it tells nothing that needs a token."""

from typing import Any

from fastapi import APIRouter

from rbee_hive.dependencies import ServicesDep
from rbee_shared.version import __version__

router = APIRouter()


@router.get("/health")
async def health(services: ServicesDep) -> dict[str, Any]:
    return {
        "status": "draining" if services.daemon.stopping.is_requested else "healthy",
        "program": "rbee-hive",
        "instance": services.daemon.instance,
        "version": __version__,
        "workers": len(services.registry.live()),
        "gpus": sum(device.backend != "cpu" for device in services.devices.present()),
        "adopted": services.link.adopted,
        "standalone": services.settings.standalone,
    }

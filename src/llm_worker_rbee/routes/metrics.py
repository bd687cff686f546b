"""Counters for Prometheus."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from llm_worker_rbee.dependencies import ServicesDep

router = APIRouter()


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: ServicesDep) -> PlainTextResponse:
    """Prometheus's text format."""
    text = services.metrics.render(
        slots_total=services.jobs.slots,
        slots_busy=services.jobs.busy,
        rss_bytes=services.rss_bytes(),
        engine_steps=services.engine.steps,
    )
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

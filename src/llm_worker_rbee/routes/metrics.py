"""Counters, histograms and gauges for Prometheus."""

from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import Response

from llm_worker_rbee.dependencies import ServicesDep

router = APIRouter()


@router.get("/metrics", response_class=Response)
async def metrics(services: ServicesDep, accept: Annotated[str, Header()] = "") -> Response:
    """Prometheus's text format, or OpenMetrics for a scraper that asks for it."""
    body, content_type = services.metrics.render(services.gauges(), accept=accept)
    return Response(body, media_type=content_type)

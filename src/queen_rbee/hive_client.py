"""What the queen asks of a hive, over HTTP with the cluster's token."""

from collections.abc import Mapping
from dataclasses import dataclass

import httpx2

from rbee_shared.contracts.models import ModelList, ModelRow
from rbee_shared.contracts.nodes import Devices
from rbee_shared.contracts.workers import SpawnAnswer, WorkerList
from rbee_shared.errors import NodeUnreachableError, RequestTimeoutError
from rbee_shared.http_client import bearer, call, read_answer


@dataclass(frozen=True)
class Room:
    """There is room: what the model needs, and what the device has free."""

    required_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class HiveClient:
    """Calls to one hive. Every method raises the hive's own error, or NODE_UNREACHABLE."""

    client: httpx2.AsyncClient
    url: str
    token: str

    async def devices(self) -> Devices:
        return Devices.model_validate(await self._call("GET", "/v1/devices"))

    async def models(self) -> tuple[ModelRow, ...]:
        return ModelList.model_validate(await self._call("GET", "/v1/models")).models

    async def import_model(self, path: str, *, anywhere: bool) -> ModelRow:
        body = {"path": path, "anywhere": anywhere}
        return ModelRow.model_validate(await self._call("POST", "/v1/models/import", body))

    async def capacity(self, device: str, model: str) -> Room:
        """Whether a worker for `model` fits on `device`.

        Raises:
            InsufficientMemoryError: it does not; `details` has both numbers.
        """
        url = f"{self.url}/v1/capacity"
        params = {"device": device, "model": model}
        try:
            response = await self.client.get(url, params=params, headers=bearer(self.token))
        except httpx2.TimeoutException:
            raise RequestTimeoutError(f"{url}: no answer in time") from None
        except httpx2.TransportError as error:
            raise NodeUnreachableError(f"{url}: {error}") from None
        read_answer(response.status_code, response.content, what=f"GET {url}")
        return Room(
            required_bytes=int(response.headers.get("X-Rbee-Required-Bytes", 0)),
            free_bytes=int(response.headers.get("X-Rbee-Free-Bytes", 0)),
        )

    async def spawn(self, *, model: str, backend: str, device: str, request_id: str) -> SpawnAnswer:
        body = {"model": model, "backend": backend, "device": device, "request_id": request_id}
        return SpawnAnswer.model_validate(await self._call("POST", "/v1/workers/spawn", body))

    async def workers(self) -> WorkerList:
        return WorkerList.model_validate(await self._call("GET", "/v1/workers/list"))

    async def stop_worker(self, worker_id: str) -> None:
        await self._call("POST", f"/v1/workers/{worker_id}/stop")

    async def adopt(self, queen_url: str, epoch: int) -> None:
        await self._call("POST", "/v1/adopt", {"queen_url": queen_url, "epoch": epoch})

    async def shutdown(self) -> None:
        await self._call("POST", "/shutdown")

    async def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
        return await call(
            self.client, method, self.url + path, token=self.token, body=body, unreachable=NodeUnreachableError
        )

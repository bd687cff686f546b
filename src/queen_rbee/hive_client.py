"""What the queen asks of a hive, over HTTP with the cluster's token."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from rbee_shared.contracts.models import ModelList, ModelRow
from rbee_shared.contracts.nodes import Devices
from rbee_shared.contracts.workers import SpawnAnswer, WorkerList
from rbee_shared.errors import BadPeerError, NodeUnreachableError, RequestTimeoutError
from rbee_shared.http_client import bearer, call, read_answer

AnswerT = TypeVar("AnswerT", bound=BaseModel)


@dataclass(frozen=True)
class Room:
    """There is room: what the model needs, and what the device has free."""

    required_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class HiveClient:
    """Calls to one hive. Every method raises the hive's own error, NODE_UNREACHABLE, or BAD_PEER."""

    client: httpx2.AsyncClient
    url: str
    token: str = field(repr=False)

    async def devices(self) -> Devices:
        return await self._read(Devices, "GET", "/v1/devices")

    async def models(self) -> tuple[ModelRow, ...]:
        return (await self._read(ModelList, "GET", "/v1/models")).models

    async def import_model(self, path: str, *, anywhere: bool) -> ModelRow:
        body = {"path": path, "anywhere": anywhere}
        return await self._read(ModelRow, "POST", "/v1/models/import", body)

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
        except (httpx2.TransportError, httpx2.InvalidURL, OSError) as error:
            raise NodeUnreachableError(f"{url}: {str(error) or type(error).__name__}") from None
        read_answer(response.status_code, response.content, what=f"GET {url}")
        required, free = (response.headers.get(f"X-Rbee-{name}-Bytes", "0") for name in ("Required", "Free"))
        if not (required.isascii() and required.isdigit() and free.isascii() and free.isdigit()):
            raise BadPeerError(f"{url}: says there is room, and not how much")
        return Room(required_bytes=int(required), free_bytes=int(free))

    async def spawn(self, *, model: str, backend: str, device: str, request_id: str) -> SpawnAnswer:
        body = {"model": model, "backend": backend, "device": device, "request_id": request_id}
        return await self._read(SpawnAnswer, "POST", "/v1/workers/spawn", body)

    async def workers(self) -> WorkerList:
        return await self._read(WorkerList, "GET", "/v1/workers/list")

    async def stop_worker(self, worker_id: str) -> None:
        await self._call("POST", f"/v1/workers/{worker_id}/stop")

    async def adopt(self, queen_url: str, epoch: int) -> None:
        await self._call("POST", "/v1/adopt", {"queen_url": queen_url, "epoch": epoch})

    async def shutdown(self) -> None:
        await self._call("POST", "/shutdown")

    async def _read(
        self, model: type[AnswerT], method: str, path: str, body: Mapping[str, object] | None = None
    ) -> AnswerT:
        try:
            return model.model_validate(await self._call(method, path, body))
        except ValidationError as error:
            wrong = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
            raise BadPeerError(f"{method} {self.url}{path}: the answer is not as it should be: {wrong}") from None

    async def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
        return await call(
            self.client, method, self.url + path, token=self.token, body=body, unreachable=NodeUnreachableError
        )

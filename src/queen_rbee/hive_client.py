"""What the queen asks of a hive, over HTTP with the cluster's token."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlencode

import httpx2
from pydantic import BaseModel, ValidationError

from queen_rbee.reach import Callback
from rbee_shared.contracts.capacity import Capacity
from rbee_shared.contracts.hives import HiveStatus
from rbee_shared.contracts.models import ModelList, ModelRow
from rbee_shared.contracts.nodes import AdoptRequest, Devices
from rbee_shared.contracts.provisions import BuildList, BuildRow, ProvisionAnswer
from rbee_shared.contracts.workers import SpawnAnswer, WorkerList
from rbee_shared.errors import BadPeerError, NodeUnreachableError, RequestTimeoutError
from rbee_shared.http_client import bearer, call, read_answer
from rbee_shared.http_wire import EPOCH_HEADER

AnswerT = TypeVar("AnswerT", bound=BaseModel)


@dataclass(frozen=True)
class HiveClient:
    """Calls to one hive. Every method raises the hive's own error, NODE_UNREACHABLE, or BAD_PEER.

    `epoch` goes with every call: a hive that was taken anew since refuses orders that are older.
    """

    client: httpx2.AsyncClient
    url: str
    token: str = field(repr=False)
    epoch: int

    async def status(self) -> HiveStatus:
        """Everything about it; asked of a hive of any version, whoever has it."""
        return await self._read(HiveStatus, "GET", "/v1/status")

    async def devices(self) -> Devices:
        return await self._read(Devices, "GET", "/v1/devices")

    async def find_model(self, model: str) -> ModelRow | None:
        """The row that an id, an alias or a reference means there; None if there is none."""
        listed = await self._read(ModelList, "GET", f"/v1/models?{urlencode({'model': model})}")
        return listed.models[0] if listed.models else None

    async def model_names(self) -> frozenset[str]:
        """Every id, alias and reference under which it knows a model."""
        rows = (await self._read(ModelList, "GET", "/v1/models")).models
        return frozenset(name for row in rows for name in (row.id, row.canonical_ref, *row.aliases))

    async def model_ids(self) -> tuple[str, ...]:
        return tuple(row.id for row in (await self._read(ModelList, "GET", "/v1/models")).models)

    async def import_model(self, path: str, *, anywhere: bool) -> ModelRow:
        body = {"path": path, "anywhere": anywhere}
        return await self._read(ModelRow, "POST", "/v1/models/import", body)

    async def capacity(self, device: str, model: str, *, patience_s: float) -> Capacity:
        """Whether a worker for `model` fits on `device`. The hive may have to ask the Hub first: `patience_s`.

        Raises:
            InsufficientMemoryError: it does not; `details` has every number.
        """
        url, params = f"{self.url}/v1/capacity", {"device": device, "model": model}
        try:
            response = await self.client.get(url, params=params, headers=bearer(self.token), timeout=patience_s)
        except httpx2.TimeoutException:
            raise RequestTimeoutError(f"{url}: no answer in time") from None
        except (httpx2.TransportError, httpx2.InvalidURL, OSError) as error:
            raise NodeUnreachableError(f"{url}: {str(error) or type(error).__name__}") from None
        read_answer(response.status_code, response.content, what=f"GET {url}")
        return self._checked(Capacity, response.headers.get("X-Rbee-Capacity", ""), f"GET {url}")

    async def provision_model(self, model: str) -> ProvisionAnswer:
        return await self._read(ProvisionAnswer, "POST", "/v1/models/provision", {"model": model})

    async def provision_build(self, kind: str) -> ProvisionAnswer:
        return await self._read(ProvisionAnswer, "POST", "/v1/workers/provision", {"kind": kind})

    async def spawn(self, *, model: str, backend: str, device: str, request_id: str) -> SpawnAnswer:
        body = {"model": model, "backend": backend, "device": device, "request_id": request_id}
        return await self._read(SpawnAnswer, "POST", "/v1/workers/spawn", body)

    async def workers(self) -> WorkerList:
        return await self._read(WorkerList, "GET", "/v1/workers/list")

    async def builds(self) -> tuple[BuildRow, ...]:
        return (await self._read(BuildList, "GET", "/v1/builds")).builds

    async def stop_worker(self, worker_id: str) -> None:
        await self._call("POST", f"/v1/workers/{worker_id}/stop")

    async def adopt(self, callback: Callback, queen_id: str) -> None:
        """Have the hive report to this queen from now on.

        Raises:
            HiveOwnedError, StaleEpochError: it belongs to another one, or to this one since later.
        """
        order = AdoptRequest(queen_url=callback.url, queen_id=queen_id, queen_token=callback.token, epoch=self.epoch)
        await self._call("POST", "/v1/adopt", order.model_dump())

    async def shutdown(self) -> None:
        await self._call("POST", "/shutdown")

    async def _read(
        self, model: type[AnswerT], method: str, path: str, body: Mapping[str, object] | None = None
    ) -> AnswerT:
        return self._checked(model, await self._call(method, path, body), f"{method} {self.url}{path}")

    @staticmethod
    def _checked(model: type[AnswerT], answer: dict[str, object] | str, what: str) -> AnswerT:
        try:
            return model.model_validate_json(answer) if isinstance(answer, str) else model.model_validate(answer)
        except ValidationError as error:
            wrong = ", ".join(".".join(map(str, fault["loc"])) or "all of it" for fault in error.errors())
            raise BadPeerError(f"{what}: the answer is not as it should be: {wrong}") from None

    async def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
        return await call(
            self.client,
            method,
            self.url + path,
            token=self.token,
            body=body,
            headers={EPOCH_HEADER: str(self.epoch)},
            unreachable=NodeUnreachableError,
        )

"""The hive that runs on this machine, asked over HTTP: what `node` offers, and its workers.

Guarantees: it is the hive of this home, known by its run file and its living process; proxies are never asked.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import ValidationError

from rbee_shared.clocks import Clocks
from rbee_shared.contracts.base import Wire
from rbee_shared.contracts.hives import FarewellList, HiveStatus, WorkerFarewell
from rbee_shared.contracts.models import (
    ImportRequest,
    ModelChange,
    ModelList,
    ModelProvisionRequest,
    ModelRow,
    RegisterRequest,
    Removal,
    Verification,
)
from rbee_shared.contracts.nodes import Devices
from rbee_shared.contracts.provisions import BuildList, BuildRow, ProvisionAnswer, WorkerProvisionRequest
from rbee_shared.contracts.workers import SpawnAnswer, SpawnRequest, WorkerList, WorkerRecord
from rbee_shared.errors import BadPeerError, ModelNotFoundError, NodeUnreachableError, StreamTruncatedError
from rbee_shared.http_client import bearer, call, http_client, read_answer
from rbee_shared.run_file import RunningDaemon

_PINGS_MISSED = 3
_BAD_REQUEST = 400
WireT = TypeVar("WireT", bound=Wire)


@dataclass(frozen=True)
class HiveApi:
    """Made by `open`. `quick` asks what is answered at once, `patient` what takes as long as it takes."""

    running: RunningDaemon
    token: str
    quick: httpx2.AsyncClient
    patient: httpx2.AsyncClient
    stream_timeout: httpx2.Timeout

    @classmethod
    @asynccontextmanager
    async def open(cls, running: RunningDaemon, token: str, clocks: Clocks) -> AsyncGenerator["HiveApi"]:
        """Clients for the hive that the run file names."""
        async with (
            http_client(connect_s=clocks.connect_s, call_s=clocks.control_call_s) as quick,
            http_client(connect_s=clocks.connect_s, call_s=None) as patient,
        ):
            silence = httpx2.Timeout(clocks.sse_ping_s * _PINGS_MISSED, connect=clocks.connect_s)
            yield cls(running, token, quick, patient, silence)

    async def status(self) -> HiveStatus:
        """What it says of itself; its pid stands in `running`."""
        return _read(HiveStatus, await self._call("GET", "/v1/status"))

    async def devices(self) -> Devices:
        return _read(Devices, await self._call("GET", "/v1/devices"))

    # models

    async def models(self) -> tuple[ModelRow, ...]:
        return _read(ModelList, await self._call("GET", "/v1/models")).models

    async def find_model(self, text: str) -> ModelRow:
        found = _read(ModelList, await self._call("GET", "/v1/models", params={"model": text})).models
        if not found:
            raise ModelNotFoundError(
                f"{text} is not in the model catalog of this node", hint="`rbee-hive models catalog` lists what is."
            )
        return found[0]

    async def register(self, order: RegisterRequest) -> ModelRow:
        return _read(ModelRow, await self._call("POST", "/v1/models/register", order))

    async def import_model(self, order: ImportRequest) -> ModelRow:
        return _read(ModelRow, await self._call("POST", "/v1/models/import", order))

    async def change_model(self, model_id: str, change: ModelChange) -> ModelRow:
        return _read(ModelRow, await self._call("PATCH", _path("models", model_id), change))

    async def verify_model(self, model_id: str) -> Verification:
        return _read(Verification, await self._call("POST", _path("models", model_id, "verify"), patiently=True))

    async def remove_model(self, model_id: str, *, files: bool) -> Removal:
        wanted = {"files": "true" if files else "false"}
        return _read(Removal, await self._call("DELETE", _path("models", model_id), params=wanted))

    @asynccontextmanager
    async def provide_model(self, order: ModelProvisionRequest) -> AsyncGenerator[AsyncIterator[bytes]]:
        answer = _read(ProvisionAnswer, await self._call("POST", "/v1/models/provision", order))
        async with self.events(answer.events_url) as events:
            yield events

    # builds

    async def builds(self) -> tuple[BuildRow, ...]:
        return _read(BuildList, await self._call("GET", "/v1/builds")).builds

    @asynccontextmanager
    async def provide_build(self, order: WorkerProvisionRequest) -> AsyncGenerator[AsyncIterator[bytes]]:
        answer = _read(ProvisionAnswer, await self._call("POST", "/v1/workers/provision", order))
        async with self.events(answer.events_url) as events:
            yield events

    async def remove_build(self, build_id: str) -> BuildRow:
        return _read(BuildRow, await self._call("DELETE", _path("builds", build_id), patiently=True))

    # workers

    async def workers(self) -> tuple[WorkerRecord, ...]:
        return _read(WorkerList, await self._call("GET", "/v1/workers/list")).workers

    async def spawn(self, order: SpawnRequest) -> SpawnAnswer:
        """It is starting. The same `request_id` again is the same worker."""
        return _read(SpawnAnswer, await self._call("POST", "/v1/workers/spawn", order))

    async def ready(self, order: SpawnRequest) -> SpawnAnswer:
        """The worker of this `request_id`, once it serves; raises why it never will."""
        wanted = {"wait": "ready"}
        return _read(SpawnAnswer, await self._call("POST", "/v1/workers/spawn", order, params=wanted, patiently=True))

    async def stop(self, worker_id: str) -> WorkerFarewell:
        """It is gone when this returns."""
        return _read(WorkerFarewell, await self._call("POST", _path("workers", worker_id, "stop"), patiently=True))

    async def stop_all(self) -> tuple[WorkerFarewell, ...]:
        """All are gone when this returns."""
        return _read(FarewellList, await self._call("POST", "/v1/workers/stop-all", patiently=True)).workers

    @asynccontextmanager
    async def events(self, path: str) -> AsyncGenerator[AsyncIterator[bytes]]:
        """An event stream of the hive. Leaving the block hangs up."""
        async with self.events_at(self.running.url + path, bearer(self.token)) as events:
            yield events

    @asynccontextmanager
    async def events_at(self, url: str, headers: Mapping[str, str]) -> AsyncGenerator[AsyncIterator[bytes]]:
        """An event stream of the hive, or of one of its workers.

        Raises:
            NodeUnreachableError: nobody is there.
            StreamTruncatedError: it broke off, or nothing came for three pings.
            RbeeError: what was answered instead.
        """
        try:
            async with self.quick.stream("GET", url, headers=headers, timeout=self.stream_timeout) as response:
                if response.status_code >= _BAD_REQUEST:
                    read_answer(response.status_code, await response.aread(), what=f"GET {url}")
                async with aclosing(response.aiter_raw()) as chunks:
                    yield chunks
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            raise NodeUnreachableError(f"{url}: no connection") from None
        except httpx2.TransportError as error:
            why = str(error) or type(error).__name__
            raise StreamTruncatedError(f"{url} broke off: {why}", hint="Run the command again.") from None

    async def _call(
        self,
        method: str,
        path: str,
        body: Wire | None = None,
        *,
        params: Mapping[str, str] | None = None,
        patiently: bool = False,
    ) -> dict[str, Any]:
        return await call(
            self.patient if patiently else self.quick,
            method,
            self.running.url + path,
            token=self.token,
            body=None if body is None else body.model_dump(mode="json", exclude_none=True),
            params=params,
            unreachable=NodeUnreachableError,
        )


def _path(*parts: str) -> str:
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def _read(kind: type[WireT], answer: Mapping[str, Any]) -> WireT:
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise BadPeerError(f"the hive's answer is no {kind.__name__}: {where}: {fault['msg']}") from None

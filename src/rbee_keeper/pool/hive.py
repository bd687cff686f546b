"""One node's hive, asked through the queen. Orders wake it; every failure is an `RbeeError`."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

from rbee_keeper.nodes.views import is_asleep
from rbee_keeper.voice import Voice
from rbee_keeper.wire_forms import fields_of, read_as
from rbee_shared.contracts.base import Wire
from rbee_shared.contracts.hives import FarewellList, HiveStatus, SelfTest, WorkerFarewell
from rbee_shared.contracts.models import ModelList, ModelProvisionRequest, ModelRow, RegisterRequest, Removal
from rbee_shared.contracts.nodes import NodeView
from rbee_shared.contracts.provisions import (
    BuildList,
    BuildRow,
    ProvisionAnswer,
    ProvisionEnd,
    WorkerProvisionRequest,
)
from rbee_shared.contracts.workers import SpawnAnswer, SpawnRequest, WorkerList, WorkerRecord
from rbee_shared.errors import ModelNotFoundError, NodeNotFoundError
from rbee_shared.steering_api import SteeringApi

WireT = TypeVar("WireT", bound=Wire)


@dataclass(frozen=True)
class Hive:
    """The hive at `node`. What takes long is heard by `voice`."""

    queen: SteeringApi
    node: str
    voice: Voice

    async def view(self) -> NodeView:
        """What the queen knows of the node, without asking it."""
        return read_as(NodeView, await self.queen.node(self.node), who="the queen")

    async def wake(self) -> None:
        """Have the hive awake, where it is to be asked something before it gets an order."""
        with suppress(NodeNotFoundError):  # the order itself may find it in the user's SSH configuration
            if not is_asleep(await self.view()):
                return
        async with self.queen.act_on_node(self.node, "start", {}) as events:
            await self.voice.follow(events)

    async def status(self) -> HiveStatus:
        return await self._ask(HiveStatus, "GET", "/v1/status")

    async def self_test(self) -> SelfTest:
        return await self._ask(SelfTest, "POST", "/v1/selftest")

    # models

    async def models(self) -> tuple[ModelRow, ...]:
        return (await self._ask(ModelList, "GET", "/v1/models")).models

    async def find_model(self, text: str) -> ModelRow:
        """The row that an id, an alias or a reference means.

        Raises:
            ModelNotFoundError: there is none.
        """
        rows = (await self._ask(ModelList, "GET", "/v1/models", params={"model": text})).models
        if not rows:
            raise ModelNotFoundError(
                f"{text} is not in the model catalog of {self.node}",
                hint=f"`rbee-keeper pool models catalog --host {self.node}` lists what is.",
            )
        return rows[0]

    async def register(self, order: RegisterRequest) -> ModelRow:
        return await self._ask(ModelRow, "POST", "/v1/models/register", order)

    async def remove_model(self, model_id: str, *, files: bool) -> Removal:
        wanted = {"files": "true" if files else "false"}
        return await self._ask(Removal, "DELETE", _path("models", model_id), params=wanted)

    async def provide_model(self, order: ModelProvisionRequest) -> ProvisionEnd:
        """Have it there: done when it is."""
        return await self._provide("/v1/models/provision", order)

    # builds

    async def builds(self) -> tuple[BuildRow, ...]:
        return (await self._ask(BuildList, "GET", "/v1/builds")).builds

    async def provide_build(self, order: WorkerProvisionRequest) -> ProvisionEnd:
        """Have a build of that kind there: done when it is."""
        return await self._provide("/v1/workers/provision", order)

    async def remove_build(self, build_id: str) -> BuildRow:
        return await self._ask(BuildRow, "DELETE", _path("builds", build_id))

    # workers

    async def workers(self) -> tuple[WorkerRecord, ...]:
        return (await self._ask(WorkerList, "GET", "/v1/workers/list")).workers

    async def spawn(self, order: SpawnRequest, *, until_ready: bool = False) -> SpawnAnswer:
        """A worker that starts, or serves. The same `request_id` again is the same worker."""
        return await self._ask(
            SpawnAnswer, "POST", "/v1/workers/spawn", order, params={"wait": "ready"} if until_ready else None
        )

    async def stop(self, worker_id: str) -> WorkerFarewell:
        """It is gone when this returns."""
        return await self._ask(WorkerFarewell, "POST", _path("workers", worker_id, "stop"))

    async def stop_all(self) -> tuple[WorkerFarewell, ...]:
        """All are gone when this returns."""
        return (await self._ask(FarewellList, "POST", "/v1/workers/stop-all")).workers

    async def _ask(
        self,
        kind: type[WireT],
        method: str,
        path: str,
        order: Wire | None = None,
        *,
        params: Mapping[str, str] | None = None,
    ) -> WireT:
        body = None if order is None else fields_of(order)
        answer = await self.queen.ask_hive(self.node, method, path, body=body, params=params)
        return read_as(kind, answer, who=f"the hive at {self.node}")

    async def _provide(self, path: str, order: Wire) -> ProvisionEnd:
        """Who leaves before the end no longer waits for it, and the hive gives the work up."""
        under_way = await self._ask(ProvisionAnswer, "POST", path, order)
        async with self.queen.hive_events(self.node, under_way.events_url) as events:
            return read_as(ProvisionEnd, await self.voice.follow(events), who=f"the hive at {self.node}")


def _path(*parts: str) -> str:
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)

"""What the routes need, in one place; and the orders that touch more than one part."""

import logging
import time
from dataclasses import dataclass, field, replace
from functools import partial

import anyio
import httpx2

from rbee_hive.builds.builder import WorkerBuilder
from rbee_hive.devices.detect import NodeDevices
from rbee_hive.domain.devices.device_choice import DeviceName, choose_device
from rbee_hive.domain.fit.capacity import require_room
from rbee_hive.domain.workers.port_choice import worker_port
from rbee_hive.models.catalog import ModelCatalog
from rbee_hive.models.library import ModelLibrary
from rbee_hive.models.provisioner import ModelProvisioner, with_hash
from rbee_hive.provisions import Provision, Provisions
from rbee_hive.queen_client import QueenLink
from rbee_hive.settings import HiveSettings
from rbee_hive.tally import Tally
from rbee_hive.workers.lifecycle import Worker
from rbee_hive.workers.order import WorkerOrder
from rbee_hive.workers.registry import WorkerRegistry
from rbee_hive.workers.room import Assessment, Need, Room
from rbee_shared.contracts.models import ModelProvisionRequest, ModelRow
from rbee_shared.contracts.provisions import BuildRow, ProvisionEnd, WorkerProvisionRequest
from rbee_shared.contracts.workers import SpawnRequest
from rbee_shared.daemon import Daemon
from rbee_shared.errors import BackendUnavailableError, ModelNotFoundError, RbeeError, ShuttingDownError
from rbee_shared.ids import new_secret, new_worker_id
from rbee_shared.model_ref import parse_model_ref
from rbee_shared.narration import Narrator, correlation_id

_LOG = logging.getLogger("rbee.hive.services")


@dataclass(frozen=True)
class Services:
    """Lives as long as the hive serves."""

    daemon: Daemon
    settings: HiveSettings
    token: str
    url: str
    client: httpx2.AsyncClient
    library: ModelLibrary
    provisioner: ModelProvisioner
    provisions: Provisions
    builds: WorkerBuilder
    devices: NodeDevices
    room: Room
    registry: WorkerRegistry
    link: QueenLink
    narrator: Narrator
    tally: Tally
    testing: anyio.Lock = field(default_factory=anyio.Lock)
    started_at_unix: float = field(default_factory=time.time)

    @property
    def catalog(self) -> ModelCatalog:
        return self.library.catalog

    def model_paths_in_use(self) -> frozenset[str]:
        """The files that workers have loaded, or are about to."""
        return frozenset(worker.order.model_path for worker in self.registry.live())

    def pin_workers(self, row: ModelRow) -> None:
        """Let the workers that run know whether their model is pinned now."""
        for worker in self.registry.live():
            if worker.order.model_id == row.id:
                worker.order = replace(worker.order, pinned=row.pinned)

    def require_open(self) -> None:
        """Raise `ShuttingDownError` once this hive is on its way out."""
        if self.daemon.stopping.is_requested:
            raise ShuttingDownError(f"the hive {self.settings.name} is shutting down")

    def require_taking_work(self) -> None:
        """Raise what keeps this hive from beginning anything: that it is on its way out, or its queen cut off."""
        self.require_open()
        self.link.require_connection()

    def device(self, backend: str | None, device: int | str | None) -> DeviceName:
        """The device that an order means; `BackendUnavailableError` if there is none."""
        return choose_device(backend, device, self.devices.present())

    async def assess(self, model: str, need: Need) -> Assessment:
        """Whether there would be room for `model`, which may not have been fetched yet.

        Raises:
            RbeeError: it is not known here, nor at the Hub, or the Hub does not tell.
        """
        row = await self.library.look_up(model)
        if row is not None and row.is_downloaded:
            return await self.room.for_model(row, need)
        ref = parse_model_ref(row.canonical_ref if row is not None else model)
        if ref.provider != "hf":
            raise ModelNotFoundError(f"{model} is not on this node")
        wanted = await self.provisioner.wanted(ref)
        return await self.room.for_size(model, wanted.chosen.size_bytes, need)

    async def provision_model(self, order: ModelProvisionRequest) -> Provision:
        """Have the model here; done at once if it is."""
        order = with_hash(order)
        key = ("model", str(parse_model_ref(order.chosen_model)), order.id or "")
        if (row := await self.library.at_hand(order.chosen_model)) is not None and order.id in {None, row.id}:
            return self.provisions.done(ProvisionEnd(model=row), *key)
        return self.provisions.start(partial(self._fetch_model, order), *key)

    async def provision_build(self, order: WorkerProvisionRequest) -> Provision:
        """Have a worker build of that kind, or the one that computes for declared devices of it."""
        order = order.model_copy(update={"kind": self._computing(order.bare_kind)})
        key = ("build", order.bare_kind, "anew" if order.rebuild else "")
        if not order.rebuild and (row := await self.builds.find(order.bare_kind)) is not None:
            return self.provisions.done(ProvisionEnd(build=row), *key)
        return self.provisions.start(partial(self._make_build, order), *key)

    async def spawn(self, order: SpawnRequest) -> Worker:
        """Start the worker that is asked for; the same `request_id` again is the same worker.

        Raises:
            RbeeError: this hive does not have the model, the device, the build or the room, or takes no new work.
        """
        self.require_taking_work()
        if (known := self.registry.known_request(order.request_id)) is not None:
            return known
        await self.catalog.find(order.chosen_model)  # without a model there is no question of a device
        device = self.device(order.backend, order.device)
        row = await self.library.ready(order.chosen_model)
        build = await self.build_for(device)
        assessment = await self.room.for_model(row, Need(device, order.n_ctx, order.slots))
        # no await from here on: two requests with one id must not both spawn, nor two loads take the same room
        if (known := self.registry.known_request(order.request_id)) is not None:
            return known
        self.require_taking_work()
        require_room(self.room.again(assessment, device).capacity)
        text = f"waking a {device.backend} worker on {device.id.upper()} with {row.local_path}"
        if device.worker_backend != device.backend:
            text += f" (declared {device.backend}, computed on {device.worker_backend})"
        self.narrator.tell("spawn", text, cute="🐝")
        worker = self.registry.spawn(self._worker_order(order, assessment, device, build), order.request_id)
        self.room.promise(worker.order.worker_id, assessment)
        self.tally.workers_started += 1
        await self._note_use(row)
        return worker

    async def build_for(self, device: DeviceName) -> BuildRow:
        """The worker build that serves `device`; `BackendUnavailableError` if it has yet to be made."""
        kind = device.worker_backend
        if (build := await self.builds.find(kind)) is None:
            raise BackendUnavailableError(
                f"there is no {kind} worker build on this node yet", hint=f"Make it: rbee-hive builds make {kind}"
            )
        return build

    def _worker_order(self, order: SpawnRequest, room: Assessment, device: DeviceName, build: BuildRow) -> WorkerOrder:
        """The worker gets the context that there was found to be room for, not one that it chooses later."""
        row, plan = room.row, room.capacity
        assert row is not None
        return WorkerOrder(
            worker_id=new_worker_id(device.backend),
            api_key=new_secret(),
            model_ref=order.chosen_model,
            model_path=row.local_path or "",
            backend=device.backend,
            device=device.id,
            runs_on=(device.worker_backend, device.worker_device),
            port=worker_port(order.port_hint, self.settings.worker_port),
            bind=self.settings.bind,
            n_ctx=order.n_ctx or plan.n_ctx,
            slots=order.slots or plan.slots,
            ordered_by=self.link.ownership.orders_as,
            correlation_id=correlation_id.get(),
            model_id=row.id,
            pinned=row.pinned,
            engine_path=build.path,
            extra_env=dict(device.environment),
        )

    async def _note_use(self, row: ModelRow) -> None:
        try:
            await self.catalog.note_use(row.id)
        except RbeeError as error:  # the worker runs: whoever ordered it must be told its id
            _LOG.warning("the use of %s could not be noted: %s", row.id, error)

    def _computing(self, kind: str) -> str:
        """The kind of build that workers of such a device run."""
        return next((device.worker_backend for device in self.devices.present() if device.backend == kind), kind)

    async def _fetch_model(self, order: ModelProvisionRequest, job: Provision) -> ProvisionEnd:
        with self.tally.counting(self.tally.downloads):
            return await self.provisioner.provide(order, job)

    async def _make_build(self, order: WorkerProvisionRequest, job: Provision) -> ProvisionEnd:
        with self.tally.counting(self.tally.builds):
            narrator = job.narrator.speaking_as("hive")
            row = await self.builds.provide(order.bare_kind, narrator, job.progress, rebuild=order.rebuild)
            return ProvisionEnd(build=row)

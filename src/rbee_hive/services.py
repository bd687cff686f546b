"""What the routes need, in one place; and the orders that touch more than one part."""

from dataclasses import dataclass

from rbee_hive import model_files
from rbee_hive.devices import detect
from rbee_hive.domain.capacity import Capacity, require_room
from rbee_hive.domain.device_choice import DeviceName, choose_device
from rbee_hive.domain.port_choice import worker_port
from rbee_hive.model_catalog import ModelCatalog
from rbee_hive.queen_client import QueenLink
from rbee_hive.settings import HiveSettings
from rbee_hive.worker_lifecycle import Worker
from rbee_hive.worker_order import WorkerOrder
from rbee_hive.worker_registry import WorkerRegistry
from rbee_shared.contracts.models import ModelRow
from rbee_shared.contracts.workers import SpawnRequest
from rbee_shared.daemon import Daemon
from rbee_shared.errors import ShuttingDownError
from rbee_shared.ids import new_secret, new_worker_id
from rbee_shared.narration import Narrator, correlation_id


@dataclass(frozen=True)
class Services:
    """Lives as long as the hive serves."""

    daemon: Daemon
    settings: HiveSettings
    token: str
    catalog: ModelCatalog
    registry: WorkerRegistry
    link: QueenLink
    narrator: Narrator

    def require_open(self) -> None:
        """Raise `ShuttingDownError` once this hive is on its way out."""
        if self.daemon.stopping.is_requested:
            raise ShuttingDownError(f"the hive {self.settings.name} is shutting down")

    def device(self, backend: str | None, device: int | str | None) -> DeviceName:
        """The device that an order means; `BackendUnavailableError` if there is none."""
        return choose_device(backend, device, detect.present())

    async def room(self, row: ModelRow, device: DeviceName) -> Capacity:
        """What the model needs there and what is free; `InsufficientMemoryError` if that is too little."""
        return require_room(row.size_bytes, await detect.free_bytes(device), model=row.id, device=device.id)

    async def spawn(self, order: SpawnRequest) -> Worker:
        """Start the worker that is asked for; the same `request_id` again is the same worker.

        Raises:
            RbeeError: this hive does not have the model, the device or the room, or is on its way out.
        """
        self.require_open()
        if (known := self.registry.known_request(order.request_id)) is not None:
            return known
        row = await self.catalog.find(order.chosen_model)
        device = self.device(order.backend, order.device)
        file = await model_files.inspect(row.local_path, roots=None)
        await self.room(row, device)
        # no await from here on: two requests with one id must not both spawn
        if (known := self.registry.known_request(order.request_id)) is not None:
            return known
        self.require_open()
        self.narrator.tell(
            "spawn", f"waking a {device.backend} worker on {device.id.upper()} with {file.path}", cute="🐝"
        )
        return self.registry.spawn(
            WorkerOrder(
                worker_id=new_worker_id(device.backend),
                api_key=new_secret(),
                model_ref=order.chosen_model,
                model_path=str(file.path),
                backend=device.backend,
                device=device.id,
                port=worker_port(order.port_hint, self.settings.worker_port),
                n_ctx=order.n_ctx,
                slots=order.slots,
                ordered_by=self.link.queen_url,
                correlation_id=correlation_id.get(),
            ),
            order.request_id,
        )

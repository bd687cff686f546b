"""Room for workers: what a model needs on a device, what is promised there, and what loads really took.

Guarantees: memory is promised to a worker from the moment it is ordered until it is gone or has taken it; each load's
real figures are kept beside its estimate, and correct the next one of its family.
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import anyio.to_thread

from rbee_hive.devices.detect import NodeDevices
from rbee_hive.domain.devices.device_choice import CPU, DeviceName
from rbee_hive.domain.fit.capacity import judged, margin_bytes, required_by_size, with_estimate
from rbee_hive.domain.fit.context_plan import plan_context
from rbee_hive.domain.fit.estimate import Estimate, LoadRecord, Parts, corrected, estimate
from rbee_hive.domain.fit.model_shape import shape_of
from rbee_hive.domain.fit.promises import Promise, promised_bytes
from rbee_hive.domain.fit.targets import Target, repacked_by
from rbee_hive.domain.workers.held_memory import held_bytes
from rbee_hive.models import files as model_files
from rbee_hive.models.catalog import ModelCatalog
from rbee_hive.models.load_history import Load
from rbee_hive.workers.defaults import WorkerDefaults
from rbee_shared.contracts.capacity import Capacity
from rbee_shared.contracts.models import ModelRow
from rbee_shared.contracts.workers import WorkerRecord
from rbee_shared.errors import ModelInvalidError
from rbee_shared.machine_limits import memory


@dataclass(frozen=True)
class Need:
    """What is asked for. `n_ctx`, `slots`: None leaves them to the worker."""

    device: DeviceName
    n_ctx: int | None = None
    slots: int | None = None


@dataclass(frozen=True)
class Assessment:
    """`estimate`: before any correction; None where the header could not be used."""

    capacity: Capacity
    row: ModelRow | None = None
    estimate: Estimate | None = None
    host_promised_bytes: int = 0


@dataclass
class Room:
    """`workers`: the records of all workers of this hive, now."""

    catalog: ModelCatalog
    devices: NodeDevices
    workers: Callable[[], tuple[WorkerRecord, ...]]
    defaults: WorkerDefaults
    _ordered: dict[str, Assessment] = field(default_factory=dict)

    async def for_size(self, model: str, size_bytes: int, need: Need) -> Assessment:
        """Room for a file that is not here: by its size alone."""
        blank = await self._blank(model, need.device, size_bytes, mapping="")
        return Assessment(judged(blank))

    async def for_model(self, row: ModelRow, need: Need) -> Assessment:
        """Room for a model that is here, from its header; by its size if the header is of no use.

        Raises:
            ModelNotFoundError: a file of it is gone.
        """
        blank = await self._blank(row.id, need.device, row.size_bytes, mapping=row.local_path or "")
        try:
            shape = shape_of(await model_files.headers_of(row))
        except ModelInvalidError:  # llama.cpp may still know it: the size is the best there is to go by
            return Assessment(judged(blank), row)
        backend = need.device.worker_backend
        plan = plan_context(
            shape,
            n_ctx=need.n_ctx or self.defaults.n_ctx,
            slots=need.slots or self.defaults.slots,
            free_bytes=blank.available_bytes - shape.weights.total_bytes,
            backend=backend,  # type: ignore[arg-type]
        )
        plan = self.defaults.applied(plan)
        first = estimate(shape, plan, await anyio.to_thread.run_sync(_target, backend))
        loads = [_record(load) for load in await self.catalog.loads.of_family(shape.architecture, backend)]
        told = with_estimate(blank, corrected(first, loads), plan, loads=len(loads))
        host_promised = promised_bytes(self._promises(), CPU.id, is_main_memory=True)
        return Assessment(judged(await self._with_host(told, need.device)), row, first, host_promised)

    def again(self, assessment: Assessment, device: DeviceName) -> Assessment:
        """Judged anew by what is promised now: others may have been given room since. No await."""
        told, row = assessment.capacity, assessment.row
        is_main = device.worker_backend == "cpu"
        mapping = (row.local_path or "") if row is not None else ""
        promised = promised_bytes(self._promises(), device.id, is_main_memory=is_main, mapping=mapping)
        newly_host = promised_bytes(self._promises(), CPU.id, is_main_memory=True) - assessment.host_promised_bytes
        host_free = told.host_free_bytes
        if host_free is not None:
            host_free = max(0, host_free - max(0, newly_host))
        return replace(
            assessment,
            capacity=judged(told.model_copy(update={"promised_bytes": promised, "host_free_bytes": host_free})),
        )

    def promise(self, worker_id: str, assessment: Assessment) -> None:
        """From now on that memory belongs to the worker. No await between the look and this."""
        live = {record.id for record in self.workers()}
        self._ordered = {key: value for key, value in self._ordered.items() if key in live}
        self._ordered[worker_id] = assessment

    async def note_load(self, record: WorkerRecord) -> None:
        """That worker serves: what it took is kept beside what was estimated."""
        ordered = self._ordered.get(record.id)
        if ordered is None or ordered.estimate is None or ordered.row is None or record.memory is None:
            return
        expected, actual = ordered.estimate.parts, record.memory
        await self.catalog.loads.note(
            Load(
                architecture=ordered.row.architecture or "",
                backend=record.backend,
                model_id=ordered.row.id,
                n_ctx=ordered.capacity.n_ctx or 0,
                slots=ordered.capacity.slots or 0,
                estimated_weights=expected.weights_bytes,
                estimated_kv=expected.kv_bytes,
                estimated_compute=expected.compute_bytes,
                actual_weights=actual.weights_bytes,
                actual_kv=actual.kv_bytes,
                actual_compute=actual.compute_bytes,
            )
        )

    async def _blank(self, model: str, device: DeviceName, size_bytes: int, *, mapping: str) -> Capacity:
        """What is known before the header is read."""
        is_main = device.worker_backend == "cpu"
        free_bytes = await self.devices.free_bytes(device, held_bytes(self.workers()))
        total_bytes = (await anyio.to_thread.run_sync(memory)).total_bytes if is_main else 0
        need_bytes = required_by_size(size_bytes)
        return Capacity(
            model=model,
            device=device.id,
            fits=False,
            basis="size",
            weights_bytes=size_bytes,
            overhead_bytes=need_bytes - size_bytes,
            required_bytes=need_bytes,
            free_bytes=free_bytes,
            promised_bytes=promised_bytes(self._promises(), device.id, is_main_memory=is_main, mapping=mapping),
            margin_bytes=margin_bytes(is_main_memory=is_main, total_bytes=total_bytes),
        )

    async def _with_host(self, capacity: Capacity, device: DeviceName) -> Capacity:
        """A graphics device with a memory of its own needs some of main memory besides."""
        if not capacity.host_bytes:
            return capacity
        main = await self._blank(capacity.model, CPU, 0, mapping="")
        return capacity.model_copy(update={"host_free_bytes": main.available_bytes})

    def _promises(self) -> list[Promise]:
        return [
            Promise(
                device=record.device,
                state=record.state,
                model_path=(ordered.row.local_path or "") if ordered.row else "",
                weights_bytes=ordered.capacity.weights_bytes,
                other_bytes=ordered.capacity.required_bytes - ordered.capacity.weights_bytes,
                host_bytes=ordered.capacity.host_bytes,
            )
            for record in self.workers()
            if (ordered := self._ordered.get(record.id)) is not None
        ]


def _record(load: Load) -> LoadRecord:
    return LoadRecord(
        Parts(load.estimated_weights, load.estimated_kv, load.estimated_compute),
        Parts(load.actual_weights, load.actual_kv, load.actual_compute),
    )


@cache
def _target(backend: str) -> Target:
    """What this machine's processor does with weights; blocking, once."""
    features: set[str] = set()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() in {"flags", "features"}:
                features |= set(value.split())
    except OSError:
        features = set()
    return Target(backend, repacked_by(platform.machine(), features))  # type: ignore[arg-type]

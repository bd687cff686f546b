"""What people see of a hive, through its own command line or the keeper's: its facts in, text out.

Pure, and as wide as it is told.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit

from rbee_shared.contracts.hives import HiveFarewell, HiveStatus, WorkerFarewell
from rbee_shared.contracts.models import ModelRow, Removal, Verification
from rbee_shared.contracts.nodes import CpuDevice, Devices, GpuDevice
from rbee_shared.contracts.provisions import BuildRow, ProvisionEnd
from rbee_shared.contracts.workers import WorkerRecord, WorkerState
from rbee_shared.errors import error_from_body
from rbee_shared.redaction import printable_line
from rbee_shared.tables import facts, framed
from rbee_shared.units import format_bytes

_UNKNOWN = "-"


def catalog(rows: Sequence[ModelRow], node: str, width: int) -> str:
    """Every row, whether its files are here or not."""
    cells = [(row.id, row.name, "✅" if row.is_downloaded else "❌", _size(row)) for row in rows]
    header = ("ID", "Name", "Downloaded", "Size")
    return framed(f"Model Catalog for {node}", header, cells, f"Total models: {len(rows)}", width=width)


def downloaded(rows: Sequence[ModelRow], node: str, width: int) -> str:
    """The models whose files are here."""
    header = ("ID", "Name", "Quant", "Size", "Last used", "Pinned")
    cells = [
        (row.id, row.name, row.quant or _UNKNOWN, _size(row), _when(row.last_used_unix), "📌" if row.pinned else "")
        for row in rows
    ]
    return framed(f"Models on {node}", header, cells, f"Total models: {len(rows)}", width=width)


def model(row: ModelRow, width: int) -> str:
    """All that the catalog knows of one model."""
    pairs: list[tuple[str, object]] = [
        ("id", row.id),
        ("name", row.name),
        ("aliases", ", ".join(row.aliases)),
        ("reference", row.canonical_ref),
        ("downloaded", _when(row.downloaded_at_unix) if row.is_downloaded else "no"),
        ("size", _size(row) if row.is_downloaded else None),
        ("architecture", row.architecture),
        ("quant", row.quant),
        ("sha256", row.sha256),
        ("used", f"{row.use_count} times, last {_when(row.last_used_unix)}" if row.use_count else None),
        ("pinned", "yes" if row.pinned else None),
        *(("file", f"{part.path} ({format_bytes(part.size_bytes)})") for part in row.files),
    ]
    return facts(pairs, width=width)


def verification(found: Verification) -> str:
    """One line for each file, and the verdict."""
    lines = [
        printable_line(f"{'ok' if check.ok else 'FAILED'}  {check.path}{f': {check.problem}' if check.problem else ''}")
        for check in found.files
    ]
    verdict = "is what it was" if found.ok else "is not what it was"
    return "\n".join([*lines, printable_line(f"{found.id} {verdict}")])


def removal(done: Removal) -> str:
    """What is gone."""
    if not done.files_removed:
        return printable_line(f"{done.id} is no longer in the catalog")
    gone = [printable_line(f"removed {path}") for path in done.files_removed]
    return "\n".join([*gone, printable_line(f"{done.id} is gone, {format_bytes(done.freed_bytes)} came free")])


def provided(end: ProvisionEnd, where: str = "here") -> str:
    """What is there now, after a download or a build. `where`: `here`, or `on mac`."""
    fetched = f", {format_bytes(end.bytes_fetched)} fetched" if end.bytes_fetched else ""
    if end.model is not None:
        return printable_line(f"{end.model.id} is {where} ({_size(end.model)}{fetched}): {end.model.local_path}")
    if end.build is not None:
        return printable_line(f"{end.build.id} is {where} ({_build_place(end.build)})")
    return "done"


def builds(rows: Sequence[BuildRow], node: str, width: int) -> str:
    """The worker builds of this node."""
    header = ("ID", "Kind", "Version", "Backends", "Made", "Size", "Where")
    cells = [
        (
            row.id, row.kind, row.version, ", ".join(row.backends) or _UNKNOWN, _when(row.made_at_unix),
            format_bytes(row.size_bytes) if row.size_bytes else _UNKNOWN, _build_place(row),
        )
        for row in rows
    ]  # fmt: skip
    return framed(f"Worker Builds on {node}", header, cells, f"Total builds: {len(rows)}", width=width)


def workers(records: Sequence[WorkerRecord], width: int) -> str:
    """The workers that have not been stopped; one that failed says why."""
    active = [record for record in records if record.state is not WorkerState.STOPPED]
    header = ("ID", "Backend", "Model", "Port", "PID", "Status")
    cells = [
        (record.id, record.backend, record.model_ref, _port(record.url), record.pid or _UNKNOWN, _status(record))
        for record in active
    ]
    return framed("Active Workers", header, cells, f"Total workers: {len(active)}", width=width)


def farewells(done: Sequence[WorkerFarewell]) -> str:
    """What became of the workers that were stopped."""
    if not done:
        return "no workers to stop"
    return "\n".join(
        printable_line(f"worker {worker.worker_id} is {worker.state}{_memory_back(worker)}") for worker in done
    )


def hive_farewell(done: HiveFarewell) -> str:
    """How the hive of this machine ended, and what was left of it."""
    who = f"the hive (pid {done.pid})"
    how = {"none": "no hive runs here", "asked": f"{who} has stopped"}.get(done.how, f"{who} was ended by {done.how}")
    left = [
        printable_line(f"worker {worker_id}, which a hive had left behind, was ended") for worker_id in done.workers
    ]
    return "\n".join([how, *left])


def devices(found: Devices, node: str, width: int) -> str:
    """What this node can compute on, the graphics devices first."""
    header = ("ID", "Backend", "Name", "Memory", "Free", "Load", "Temp")
    cells = [*map(_gpu_cells, found.gpus), _cpu_cells(found.cpu)]
    table = framed(f"Devices of {node}", header, cells, f"Total devices: {len(cells)}", width=width)
    return "\n".join([table, *(printable_line(f"problem: {problem}") for problem in found.problems)])


def status(found: HiveStatus, width: int, more: Iterable[tuple[str, object]] = ()) -> str:
    """The hive and all that it has; `more`: what only the one who asks knows of it."""
    belongs = "standalone" if found.standalone else "adopted" if found.adopted else "on its own"
    queen = " ".join(filter(None, (found.queen_url or "none", found.queen_id, f"({belongs})")))
    pairs: list[tuple[str, object]] = [
        ("hive", f"{found.name} at {found.url}"),
        *more,
        ("version", found.version),
        ("since", _when(int(found.started_at))),
        ("queen", f"{queen}, cut off" if found.cut_off else queen),
        ("models", f"{found.models} known, {found.downloaded} downloaded"),
        ("under way", found.provisions or None),
        ("disk", f"{format_bytes(found.disk_free_bytes)} free in {found.models_dir}"),
    ]
    parts = [facts(pairs, width=width), devices(found.devices, found.name, width), workers(found.workers, width)]
    return "\n\n".join([*parts, builds(found.builds, found.name, width)])


def _size(row: ModelRow) -> str:
    return format_bytes(row.size_bytes) if row.is_downloaded else "0 B"


def _when(unix_s: int | None) -> str:
    if unix_s is None:
        return "never"
    return datetime.fromtimestamp(unix_s, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def _build_place(row: BuildRow) -> str:
    return row.path or "the hive's own environment"


def _port(url: str | None) -> object:
    try:
        return (urlsplit(url).port if url else None) or _UNKNOWN
    except ValueError:  # no URL, or no port that can be
        return _UNKNOWN


def _status(record: WorkerRecord) -> str:
    if record.error is None:
        return record.state.value
    return f"{record.state.value}: {error_from_body(record.error).code}"


def _memory_back(worker: WorkerFarewell) -> str:
    memory = worker.memory
    if memory is None or not memory.released or not memory.worker_bytes:
        return ""
    return f", {format_bytes(memory.worker_bytes)} came free"


def _gpu_cells(gpu: GpuDevice) -> tuple[str, ...]:
    name = f"{gpu.name} (declared)" if gpu.declared else gpu.name
    memory = format_bytes(gpu.vram_bytes) + (" unified" if gpu.unified else "")
    load, heat = _percent(gpu.utilisation_pct), _degrees(gpu.temperature_c)
    return (gpu.id, gpu.backend, name, memory, format_bytes(gpu.free_bytes), load, heat)


def _cpu_cells(cpu: CpuDevice) -> tuple[str, ...]:
    name = f"{cpu.name} ({cpu.cores} cores)" + ("" if cpu.offered else ", not offered")
    load, heat = _percent(cpu.utilisation_pct), _degrees(cpu.temperature_c)
    return ("cpu", "cpu", name, format_bytes(cpu.ram_bytes), format_bytes(cpu.free_bytes), load, heat)


def _percent(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.0f} %"


def _degrees(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.0f} °C"

"""NVIDIA cards as the devices of a node: what was read of them becomes names for orders and facts for the wire."""

from collections.abc import Mapping
from dataclasses import dataclass

from rbee_hive.domain.devices.device_choice import DeviceName
from rbee_hive.domain.devices.found_devices import Found
from rbee_hive.domain.devices.visible_cards import Card, Seen, Visible, visible
from rbee_shared.contracts.nodes import GpuDevice
from rbee_shared.machine_limits import Memory

_GB = 1_000_000_000


@dataclass(frozen=True)
class Part:
    """What a worker can have: a whole card, or one MIG instance. Memory is None where the card has none of its own."""

    uuid: str
    name: str
    total_bytes: int | None
    free_bytes: int | None
    utilisation_pct: float | None = None
    temperature_c: float | None = None


@dataclass(frozen=True)
class CardReading:
    """One card at one moment. `parts`: itself; in MIG mode its instances, which may be none."""

    uuid: str
    name: str
    is_mig: bool
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Cards:
    """All cards by NVML's index. `last`: what was read of each before, `now`: what could be read this time."""

    count: int
    driver: str | None
    last: Mapping[int, CardReading]
    now: Mapping[int, CardReading]


def nvidia_devices(cards: Cards, listed: str | None, ram: Memory) -> Found:
    """The devices that workers may use. `listed`: CUDA_VISIBLE_DEVICES; `ram`: what unified parts share."""
    seen = visible([_card(cards, place) for place in range(cards.count)], listed)
    gpus = [_gpu(device, cards, ram) for device in seen.devices]
    uncut = [
        f"GPU {place} ({card.name}) is in MIG mode and has no instances"
        for place, card in sorted(cards.now.items())
        if card.is_mig and not card.parts
    ]
    return Found(
        tuple(_name(device, seen) for device in seen.devices),
        tuple(gpu for gpu in gpus if gpu is not None),
        (*uncut, *((seen.problem,) if seen.problem else ())),
    )


def _card(cards: Cards, place: int) -> Card:
    known = cards.now.get(place) or cards.last.get(place)
    if known is None:
        return Card(None, healthy=False)
    mig = tuple(part.uuid for part in known.parts) if known.is_mig else None
    return Card(known.uuid, mig, healthy=place in cards.now)


def _name(device: Seen, seen: Visible) -> DeviceName:
    return DeviceName(f"gpu{device.index}", "cuda", device.index, None, seen.number(device), seen.environment(device))


def _gpu(device: Seen, cards: Cards, ram: Memory) -> GpuDevice | None:
    if (card := cards.now.get(device.place)) is None:
        return None
    part = card.parts[device.instance or 0]
    unified = part.total_bytes is None or part.free_bytes is None
    total, free = (ram.total_bytes, ram.free_bytes) if unified else (part.total_bytes or 0, part.free_bytes or 0)
    return GpuDevice(
        id=f"gpu{device.index}",
        backend="cuda",
        index=device.index,
        name=part.name,
        vram_bytes=total,
        free_bytes=min(free, total),
        vram_gb=round(total / _GB, 1),
        uuid=part.uuid,
        parent_uuid=card.uuid if card.is_mig else None,
        driver=cards.driver,
        utilisation_pct=part.utilisation_pct,
        temperature_c=part.temperature_c,
        unified=unified,
    )

"""Which of a machine's NVIDIA cards a worker may use, and under which number CUDA shows each to it.

Pure: what NVML enumerates and what CUDA_VISIBLE_DEVICES says come in. The rules are CUDA's own: that variable lists
indices or UUIDs (a beginning that only one has will do), in the order that CUDA then counts in; what follows an entry
that names nothing is not seen; an entry that comes twice hides everything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rbee_hive.domain.devices.device_choice import PCI_ORDER

_DELIBERATE = frozenset({"-1", "nodevfiles", "none"})  # names nothing, and is meant to
_VARIABLE = "CUDA_VISIBLE_DEVICES"
_LONGEST_INDEX = 4  # digits
_Slot = tuple[int, int | None]  # (place of the card, which of its MIG instances; None is the whole card)


@dataclass(frozen=True)
class Card:
    """What is known of one card, by NVML's index. `mig`: UUIDs of its instances; None when it is not cut up.

    `uuid` is None for a card that could never be asked. `healthy`: it could be asked now.
    """

    uuid: str | None
    mig: tuple[str, ...] | None = None
    healthy: bool = True


@dataclass(frozen=True)
class Seen:
    """One device that workers may use. `place`: its card's in NVML's order; `instance`: which of that card's MIG's."""

    index: int
    uuid: str | None
    place: int
    instance: int | None = None


@dataclass(frozen=True)
class Visible:
    """`pinned`: CUDA's own count cannot be relied on, so each worker must be shown its one device alone, by UUID."""

    devices: tuple[Seen, ...]
    pinned: bool = False
    problem: str | None = None

    def environment(self, device: Seen) -> tuple[tuple[str, str], ...]:
        """What the environment of a worker on `device` must hold, so that it finds it under `number(device)`."""
        return ((_VARIABLE, device.uuid), PCI_ORDER) if self.pinned and device.uuid else (PCI_ORDER,)

    def number(self, device: Seen) -> int:
        """The number that a worker with that environment knows it by."""
        return 0 if self.pinned and device.uuid else device.index


def visible(cards: Sequence[Card], listed: str | None) -> Visible:
    """The devices to offer. `listed`: CUDA_VISIBLE_DEVICES, None when it is not set.

    A card that fails keeps its number, so that those behind it keep theirs.
    """
    # by default CUDA shows one MIG instance and no whole card beside it (NVIDIA's MIG user guide, "CUDA Device
    # Enumeration"), and it does not count a card that it cannot open
    pinned = any(card.mig is not None or not card.healthy for card in cards)
    if listed is None:
        everything = [slot for place in range(len(cards)) for slot in _slots(place, cards)]
        return Visible(_numbered(everything, cards), pinned)
    chosen: list[_Slot] = []
    for entry in (part.strip() for part in listed.split(",")):
        slots = _named_by(entry, cards)
        if slots is None:
            return Visible(_numbered(chosen, cards), pinned, _unknown(entry))
        if not set(slots).isdisjoint(chosen):
            return Visible((), pinned, f"{_VARIABLE} names {entry} twice: CUDA then shows no device at all")
        chosen += slots
    return Visible(_numbered(chosen, cards), pinned)


def _slots(place: int, cards: Sequence[Card]) -> list[_Slot]:
    """A whole card, or all that it is cut into."""
    mig = cards[place].mig
    return [(place, None)] if mig is None else [(place, instance) for instance in range(len(mig))]


def _named_by(entry: str, cards: Sequence[Card]) -> list[_Slot] | None:
    if entry.isascii() and entry.isdigit() and len(entry) <= _LONGEST_INDEX:
        return _slots(int(entry), cards) if int(entry) < len(cards) else None
    if not entry.startswith(("GPU-", "MIG-")):
        return None
    known = {card.uuid: _slots(place, cards) for place, card in enumerate(cards) if card.uuid}
    known |= {mig: [(place, at)] for place, card in enumerate(cards) for at, mig in enumerate(card.mig or ())}
    if entry in known:
        return known[entry]
    beginning_so = [slots for uuid, slots in known.items() if uuid.startswith(entry)]
    return beginning_so[0] if len(beginning_so) == 1 else None


def _numbered(slots: Sequence[_Slot], cards: Sequence[Card]) -> tuple[Seen, ...]:
    return tuple(
        Seen(index, cards[place].uuid if at is None else (cards[place].mig or ())[at], place, at)
        for index, (place, at) in enumerate(slots)
    )


def _unknown(entry: str) -> str | None:
    if not entry or entry.lower() in _DELIBERATE:
        return None
    return f"{_VARIABLE} names {entry!r}, which is no device here: CUDA ignores it and all that follows"

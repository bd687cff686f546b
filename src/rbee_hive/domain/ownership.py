"""To which queen a hive belongs, which queen may take it, and what the loss of her connection changes. Pure.

One queen keeps her id over every restart and under every address: her URL and her token may change, her epoch only
grows. While she has a hive no other queen gets it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rbee_hive.domain.epochs import require_current_epoch
from rbee_shared.errors import HiveOwnedError


@dataclass(frozen=True)
class Queen:
    """A queen as a hive knows her. `token`: what she takes from it; None is the cluster's."""

    url: str
    queen_id: str | None = None
    epoch: int | None = None
    token: str | None = field(default=None, repr=False)

    def is_same(self, other: "Queen") -> bool:
        """Whether both are one queen; where not both have told an id, the address decides."""
        if self.queen_id is not None and other.queen_id is not None:
            return self.queen_id == other.queen_id
        return self.url == other.url


@dataclass(frozen=True)
class Ownership:
    """`queen`: who gets the heartbeats. `adopted`: the hive is hers, and lives as long as she answers.

    `orders_as`: the name that her orders are remembered under, the same for as long as she has the hive. `cut_off`:
    the connection that she started it through is gone, and she has not come back by another.
    """

    queen: Queen | None = None
    adopted: bool = False
    orders_as: str | None = None
    cut_off: bool = False

    @property
    def epoch(self) -> int | None:
        return self.queen.epoch if self.queen else None


def first_owner(queen: Queen | None, *, started_us: bool) -> Ownership:
    """Of a hive at its start: a queen has started it, or is only to be told that it is there."""
    return Ownership(queen, adopted=started_us and queen is not None, orders_as=_name(queen))


def taken_by(now: Ownership, queen: Queen, hive: Mapping[str, Any]) -> Ownership:
    """`queen` takes the hive, or takes it again. `hive`: its `name`, and what its owner is told apart by.

    Raises:
        HiveOwnedError: it is another queen's.
        StaleEpochError: a later start of that queen has it already.
    """
    is_hers = now.queen is not None and now.queen.is_same(queen)
    if now.adopted and now.queen is not None and not is_hers:
        owner = {"queen_url": now.queen.url, "queen_id": now.queen.queen_id}
        raise HiveOwnedError(
            f"the hive {hive['name']} belongs to the queen at {now.queen.url}",
            details={**owner, **{key: value for key, value in hive.items() if key != "name"}},
        )
    if now.queen is None or not is_hers:
        return Ownership(queen, adopted=True, orders_as=_name(queen))
    require_current_epoch(queen.epoch, now.epoch)
    known = replace(queen, queen_id=queen.queen_id or now.queen.queen_id)
    return Ownership(known, adopted=True, orders_as=now.orders_as)


def asks_still(now: Ownership, asked: Ownership) -> bool:
    """Whether an answer to what was sent as `asked` is still of the queen, and from the address, that counts."""
    if now.queen is None or asked.queen is None:
        return False
    return now.queen.url == asked.queen.url and now.queen.is_same(asked.queen)


def answered(now: Ownership, asked: Ownership, *, epoch: int, adopts: bool, queen_id: str | None = None) -> Ownership:
    """She has answered the heartbeat that was sent as `asked`, which must count still. `queen_id`: who she says she is.

    An answer may be older than her last start. One to a beat from before the loss does not say that she is back, and
    neither does one that knows nothing of this hive.
    """
    assert now.queen is not None
    return replace(
        now,
        queen=replace(now.queen, epoch=max(epoch, now.epoch or 0), queen_id=now.queen.queen_id or queen_id),
        adopted=now.adopted or adopts,
        cut_off=now.cut_off and not (adopts and asked.cut_off),
    )


def given_up(announce_to: Queen | None) -> Ownership:
    """Of a hive that outlives its queen, when she has been silent for too long: it waits for the next."""
    return first_owner(announce_to, started_us=False)


def _name(queen: Queen | None) -> str | None:
    return None if queen is None else queen.queen_id or queen.url

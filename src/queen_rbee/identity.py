"""Who this queen is to her hives."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Identity:
    """`queen_id` stays the same over all her starts; `token` is the cluster's."""

    url: str
    token: str = field(repr=False)
    queen_id: str

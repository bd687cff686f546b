"""Who this queen is to her hives."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Identity:
    """`epoch` counts the queen's starts; `token` is the cluster's."""

    url: str
    token: str = field(repr=False)
    epoch: int

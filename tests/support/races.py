"""Keepers that come, go and die at random moments in one home: `scripts/bench races` and a system test run these."""

import random
import signal
import time
from dataclasses import dataclass

from tests.support.cluster import Cluster, Running

# -2 is 130 to a shell: Ctrl+C where Python itself is on its way in or out
ALLOWED = {"lives": {0}, "is killed": {0, -9}, "is interrupted": {0, 130, -2}}
_LONGEST_PAUSE_S = 3.0
_AN_ANSWER = 10


@dataclass(frozen=True)
class Ended:
    """A keeper that ended, and what the dice had decided about it."""

    fate: str
    status: int
    answer: str
    stderr: str

    @property
    def is_right(self) -> bool:
        """A keeper that nobody touched must have answered."""
        return self.status in ALLOWED[self.fate] and (self.fate != "lives" or len(self.answer) > _AN_ANSWER)


def race(cluster: Cluster, seed: int) -> list[Ended]:
    """Start 2 to 4 keepers at random moments, kill or interrupt some of them at others, wait for all."""
    dice = random.Random(seed)
    keepers: list[tuple[Running, str]] = []
    for _ in range(dice.randint(2, 4)):
        keeper = cluster.start("rbee-keeper", "infer", "hello")
        keepers.append((keeper, dice.choice(["lives", "lives", "is killed", "is interrupted"])))
        time.sleep(dice.uniform(0, _LONGEST_PAUSE_S))
        for other, fate in keepers:
            if fate != "lives" and other.process.poll() is None and dice.random() < 0.5:
                other.process.send_signal(signal.SIGKILL if fate == "is killed" else signal.SIGINT)
    return [Ended(fate, keeper.wait(), keeper.stdout, keeper.stderr) for keeper, fate in keepers]

"""The kernel's counters of memory kills, read for several workers at once."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rbee_hive.domain.workers.death import OomKills
from rbee_hive.workers import oom
from rbee_hive.workers.oom import OomLedger, OomWatch


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A counter that all processes share, as where no control group has one of its own."""
    file = tmp_path / "vmstat"
    file.write_text("nr_free_pages 1\noom_kill 7\n")
    monkeypatch.setattr(oom, "_counters", lambda _: [tmp_path / "none", file])
    return file


def test_one_kill_explains_the_death_of_one_worker_only(counter: Path) -> None:
    ledger = OomLedger()
    first, second, third = (OomWatch(os.getpid(), ledger) for _ in range(3))
    assert first.verdict() is None
    counter.write_text("oom_kill 8\n")

    assert first.verdict() == OomKills(1, str(counter))
    assert second.verdict() is None
    counter.write_text("oom_kill 9\n")
    assert third.verdict() == OomKills(1, str(counter))


def test_deaths_that_are_looked_into_at_once_do_not_share_a_kill(counter: Path) -> None:
    ledger = OomLedger()
    watches = [OomWatch(os.getpid(), ledger) for _ in range(32)]
    counter.write_text("oom_kill 10\n")
    with ThreadPoolExecutor(16) as pool:
        verdicts = list(pool.map(lambda watch: watch.verdict(), watches))

    assert len([verdict for verdict in verdicts if verdict is not None]) == 3


@pytest.mark.parametrize("content", ["", "oom_kill\n", "oom_kill -1\n", "oom_kill x\n", "\xff\n", "oom_kill 0\n", None])
def test_a_counter_that_says_nothing_explains_nothing(counter: Path, content: str | None) -> None:
    watch = OomWatch(os.getpid(), OomLedger())
    if content is None:
        counter.unlink()
    else:
        counter.write_text(content, encoding="utf-8")
    watch.look()

    assert watch.verdict() is None

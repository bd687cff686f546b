"""The queen's database: what she knows of her nodes survives her, and older files are brought up to date."""

import shutil
import sqlite3
from importlib import resources
from pathlib import Path

import anyio

from queen_rbee.domain.nodes.node import KnownDevice, Node
from queen_rbee.node_catalog import NodeCatalog
from rbee_shared.contracts.nodes import CpuDevice, Devices, GpuDevice
from rbee_shared.errors import SshUnreachableError
from rbee_shared.sqlite import Quarantined

CPU = CpuDevice(name="EPYC", cores=2, ram_bytes=8, free_bytes=8, ram_gb=1)
GPU = GpuDevice(id="gpu0", backend="cuda", index=0, name="RTX", vram_bytes=24, free_bytes=24, vram_gb=1)
MAC = Node(
    "mac", "ssh", host="10.0.0.3", port=2222, user="rita", key="/k", hive_port=9300, home="~/bee", installs=False
)  # fmt: skip


def _never(damage: Quarantined) -> None:
    raise AssertionError(damage)


async def test_what_is_told_is_kept(tmp_path: Path) -> None:
    async with NodeCatalog.open(tmp_path / "queen.db", _never) as catalog:
        await catalog.put(MAC)
        await catalog.add("localhost", transport="local")
        await catalog.seen("mac", Devices(cpu=CPU, gpus=(GPU,), models=1, workers=0), version="1.2")
        await catalog.learn_models("mac", ["tiny", "hf:a/b", "tiny"])
        await catalog.note_heard("mac", 12)
        await catalog.drain("mac", drained=True)
        await catalog.note_serving("mac", serving=True)
        queen_id, epoch = await catalog.queen_id(), await catalog.begin_epoch()

    async with NodeCatalog.open(tmp_path / "queen.db", _never) as catalog:
        local, mac = await catalog.nodes()
        assert (local.name, local.is_local, local.models) == ("localhost", True, frozenset())
        assert mac.models == {"tiny", "hf:a/b"}
        assert mac.devices == (KnownDevice("cpu", "cpu", 8, "EPYC"), KnownDevice("gpu0", "cuda", 24, "RTX"))
        assert (mac.drained, mac.serving, mac.version, mac.installs) == (True, True, "1.2", False)
        assert mac.last_seen_unix == 12
        assert (mac.host, mac.port, mac.user, mac.key, mac.hive_port, mac.home) == (
            "10.0.0.3", 2222, "rita", "/k", 9300, "~/bee",
        )  # fmt: skip
        assert await catalog.queen_id() == queen_id
        assert await catalog.begin_epoch() > epoch


async def test_changing_how_it_is_reached_forgets_only_the_last_failure(tmp_path: Path) -> None:
    async with NodeCatalog.open(tmp_path / "queen.db", _never) as catalog:
        await catalog.put(MAC)
        await catalog.learn_models("mac", ["tiny"])
        await catalog.note_failure("mac", SshUnreachableError("nobody answers"))
        (failed,) = await catalog.nodes()
        assert failed.last_error is not None
        assert (failed.last_error.code, failed.last_error.message) == ("SSH_UNREACHABLE", "nobody answers")
        await catalog.put(Node("mac", "http", host="10.0.0.4"))
        (changed,) = await catalog.nodes()
        assert (changed.transport, changed.host, changed.user, changed.last_error) == ("http", "10.0.0.4", None, None)
        assert changed.models == {"tiny"}


async def test_what_is_removed_takes_all_of_its_facts_along_and_stays_away(tmp_path: Path) -> None:
    async with NodeCatalog.open(tmp_path / "queen.db", _never) as catalog:
        await catalog.put(MAC)
        await catalog.seen("mac", Devices(cpu=CPU, models=0, workers=0))
        await catalog.learn_models("mac", ["tiny"])
        await catalog.remove("mac")
        await catalog.seen("mac", Devices(cpu=CPU, gpus=(GPU,), models=0, workers=0))
        await catalog.learn_models("mac", ["late"])
        await catalog.note_heard("mac", 5)
        await catalog.note_serving("mac", serving=True)
        assert await catalog.nodes() == ()
    with sqlite3.connect(tmp_path / "queen.db") as db:
        assert [db.execute(f"SELECT count(*) FROM {table}").fetchone() for table in ("models", "devices")] == [
            (0,),
            (0,),
        ]


async def test_epochs_rise_however_many_ask_at_once(tmp_path: Path) -> None:
    async with NodeCatalog.open(tmp_path / "queen.db", _never) as catalog:
        epochs: list[int] = []

        async def ask() -> None:
            epochs.append(await catalog.begin_epoch())

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(ask)
        assert len(set(epochs)) == 100


async def test_a_catalog_of_the_version_before_is_brought_up_to_date(tmp_path: Path) -> None:
    first = (resources.files("queen_rbee") / "sql" / "0001_hives.sql").read_text()
    with sqlite3.connect(tmp_path / "old.db") as db:
        db.executescript(first)
        db.execute("INSERT INTO hives VALUES ('localhost', 'local', 1, 2)")
        db.execute("PRAGMA user_version = 1")
        db.execute(f"PRAGMA application_id = {0x72626551}")
    shutil.copy(tmp_path / "old.db", tmp_path / "queen.db")
    async with NodeCatalog.open(tmp_path / "queen.db", _never) as catalog:
        (local,) = await catalog.nodes()
    assert (local.name, local.last_seen_unix, local.installs, local.drained) == ("localhost", 2, True, False)

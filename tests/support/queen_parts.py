"""Parts of a queen in the test's own process, on a catalog of their own."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from anyio.abc import TaskGroup
from tests.support.aging_hive import TOKEN

from queen_rbee.hive_contacts import HiveContacts
from queen_rbee.hive_registry import HiveRegistry
from queen_rbee.identity import Identity
from queen_rbee.matchmaker import Matchmaker
from queen_rbee.node_catalog import NodeCatalog
from queen_rbee.relay import token_client
from rbee_shared.http_client import http_client


@dataclass(frozen=True)
class QueenParts:
    """What knows of hives and workers."""

    matchmaker: Matchmaker
    contacts: HiveContacts


@asynccontextmanager
async def queen_parts(directory: Path, group: TaskGroup) -> AsyncGenerator[QueenParts]:
    """Of the queen `queen-1`, for the length of the block."""
    async with (
        NodeCatalog.open(directory / "queen.db", lambda _: None) as catalog,
        http_client(connect_s=5, call_s=5) as client,
        token_client(connect_s=5, silence_s=20) as session,
    ):
        hives = HiveRegistry(time.monotonic)
        matchmaker = Matchmaker(hives.devices, hives.silent)
        contacts = HiveContacts(
            identity=Identity("http://queen", TOKEN, "queen-1"),
            catalog=catalog,
            hives=hives,
            workers=matchmaker.workers,
            client=client,
            session=session,
            hear=lambda _, __: None,
            revoke=lambda _: None,
            group=group,
        )
        yield QueenParts(matchmaker, contacts)

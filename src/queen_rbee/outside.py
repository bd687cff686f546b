"""What the queen's parts are built on, already open."""

from dataclasses import dataclass

import aiohttp
import httpx2
from anyio.abc import TaskGroup

from queen_rbee.callbacks import Callbacks
from queen_rbee.identity import Identity
from queen_rbee.node_catalog import NodeCatalog
from queen_rbee.settings import QueenSettings
from rbee_shared.daemon import Daemon


@dataclass(frozen=True)
class Outside:
    """Open for as long as she lives. `group`: where her tasks run."""

    daemon: Daemon
    settings: QueenSettings
    identity: Identity
    catalog: NodeCatalog
    callbacks: Callbacks
    client: httpx2.AsyncClient
    session: aiohttp.ClientSession
    group: TaskGroup

"""Everything a route may need, built once in `queen.py` and carried by the app."""

from dataclasses import dataclass

from queen_rbee.callbacks import Callbacks
from queen_rbee.dispatcher import Dispatcher
from queen_rbee.errands import Errands
from queen_rbee.hive_contacts import HiveContacts
from queen_rbee.hive_lifecycle import HiveLifecycle
from queen_rbee.hive_registry import HiveRegistry
from queen_rbee.hive_reports import HiveReports
from queen_rbee.holds import Holds
from queen_rbee.identity import Identity
from queen_rbee.matchmaker import Matchmaker
from queen_rbee.node_actions import NodeActions
from queen_rbee.node_catalog import NodeCatalog
from queen_rbee.node_views import NodeViews
from queen_rbee.pool_proxy import PoolProxy
from queen_rbee.settings import QueenSettings
from queen_rbee.task_registry import TaskRegistry
from rbee_shared.daemon import Daemon
from rbee_shared.narration import Narrator


@dataclass(frozen=True)
class Services:
    """One queen's parts."""

    daemon: Daemon
    settings: QueenSettings
    identity: Identity
    catalog: NodeCatalog
    callbacks: Callbacks
    hives: HiveRegistry
    matchmaker: Matchmaker
    tasks: TaskRegistry
    dispatcher: Dispatcher
    holds: Holds
    errands: Errands
    nodes: NodeActions
    node_views: NodeViews
    pool: PoolProxy
    contacts: HiveContacts
    reports: HiveReports
    lifecycle: HiveLifecycle
    narrator: Narrator

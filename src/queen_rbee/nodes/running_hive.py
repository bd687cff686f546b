"""The hive that runs in a node's home, known to this queen or not: what it says of itself, and whose it is.

Nothing is asked of it but to tell: one of another version can be looked at too.
"""

from dataclasses import dataclass

from queen_rbee.domain.nodes.node import Node
from queen_rbee.domain.nodes.probe_report import HiveThere
from queen_rbee.hive_client import HiveClient
from queen_rbee.hive_contacts import HiveContacts
from queen_rbee.identity import Identity
from queen_rbee.nodes.link import NodeLink
from queen_rbee.reach import Callback, DirectReach
from rbee_shared.contracts.hives import HiveStatus
from rbee_shared.errors import HiveOwnedError, InvalidApiKeyError, NodeUnreachableError

_READING = 0  # an epoch is for orders


@dataclass(frozen=True)
class RunningHive:
    """`status`: what it said when it was found; `client` asks again, and gives no orders."""

    client: HiveClient
    status: HiveStatus

    @classmethod
    async def find(
        cls, contacts: HiveContacts, link: NodeLink, node: Node, there: HiveThere | None
    ) -> "RunningHive | None":
        """The hive that its run file `there` names; None if that is not what answers.

        Raises:
            HiveOwnedError: it is another cluster's, or another queen has adopted it.
            RequestTimeoutError: it does not answer in time.
            RbeeError: what it says cannot be understood, or nothing can be asked through that connection.
        """
        if there is None or not there.alive:
            return None
        url = await _url_from_here(contacts.identity, link, node, there.url)
        try:
            hive = await ask_hive(contacts, url, f"the hive on {node.name} ({there.url}, pid {there.pid})")
        except NodeUnreachableError:
            return None
        return hive if hive.status.instance == there.instance else None


async def ask_hive(contacts: HiveContacts, url: str, named: str) -> RunningHive:
    """The hive that answers at `url`. `named`: for people.

    Raises:
        HiveOwnedError: it is another cluster's, or another queen has adopted it.
        NodeUnreachableError, RequestTimeoutError: nobody answers, or not in time.
        BadPeerError: what it says cannot be understood.
    """
    client = HiveClient(contacts.client, url, contacts.identity.token, _READING)
    try:
        status = await client.status()
    except InvalidApiKeyError:
        raise HiveOwnedError(
            f"{named} is another cluster's: this queen's token does not open it",
            hint="Give it this cluster's token (`rbee-keeper token`), or stop it on that machine: "
            "~/.rbee/current/bin/rbee-hive stop",
        ) from None
    if status.adopted and status.queen_id not in {None, contacts.identity.queen_id}:
        owner = {"queen_url": status.queen_url, "queen_id": status.queen_id}
        raise HiveOwnedError(f"{named} belongs to the queen at {status.queen_url}", details=owner)
    return RunningHive(client, status)


async def _url_from_here(identity: Identity, link: NodeLink, node: Node, url: str) -> str:
    if node.transport == "http":
        return await DirectReach(Callback(identity.url), node.address).url(url)
    return await link.url(url)

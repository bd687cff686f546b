"""What an order changes about a node: what it names, and nothing else."""

from queen_rbee.domain.nodes.node import Node
from rbee_shared.contracts.nodes import NodeOrder

_KEPT = ("host", "port", "user", "key", "transport", "hive_port", "home")


def completed(order: NodeOrder, known: Node) -> NodeOrder:
    """The order with everything that it leaves out as it is `known`; a null in it was given, and is the default."""
    kept = {name: getattr(known, name) for name in _KEPT} | {"install": known.installs}
    return order.model_copy(update={name: value for name, value in kept.items() if name not in order.model_fields_set})

"""Host keys of nodes: confirmed by people, and forgotten with the last node that shows them."""

from dataclasses import dataclass

import anyio.to_thread

from queen_rbee.domain.nodes.node import Node
from queen_rbee.nodes.directory import NodeDirectory
from queen_rbee.ssh.dialling import Dialler
from queen_rbee.ssh.resolved import host_and_port
from queen_rbee.ssh.target import Target
from rbee_shared.errors import InvalidRequestError, SshHostKeyChangedError, SshHostKeyUnknownError


@dataclass(frozen=True)
class NodeKeys:
    """A key is kept under the host and port that SSH goes to for a node, which may be several nodes' own."""

    directory: NodeDirectory
    dialler: Dialler

    async def confirm(self, node: Node, fingerprint: str, *, instead: bool = False) -> None:
        """Trust the key of that fingerprint, if it is the one that the node shows. `instead`: of another one.

        Raises:
            SshHostKeyUnknownError: it shows another one.
            SshHostKeyChangedError: another one is trusted already.
            SshUnreachableError: nobody answers there.
        """
        target = Target.of(node)
        shown = await self.dialler.presented_key(target, fingerprint)
        key = {"key_type": shown.key.key_type, "fingerprint": shown.key.fingerprint}
        facts = {"host": shown.host, "port": shown.port, **key}
        if shown.key.fingerprint != fingerprint:
            text = f"{node.name} shows the host key {shown.key.fingerprint}, and not {fingerprint}"
            raise SshHostKeyUnknownError(text, details=facts)
        if shown.is_changed and not instead:
            known = ", ".join(shown.known)
            raise SshHostKeyChangedError(
                f"{node.name} is trusted with another host key already: {known}",
                hint=f"If the new one is right, accept it: rbee-keeper node trust {node.name}",
                details={**facts, "known_fingerprint": known},
            )
        if fingerprint not in shown.known:
            await anyio.to_thread.run_sync(self.dialler.host_keys.accept, shown.host, shown.port, shown.key)

    async def forget(self, node: Node) -> bool:
        """Trust what was confirmed for a node no longer, unless a node that is left shows it; whether that is done."""
        others = [other for other in await self.directory.nodes() if not other.is_local and other.name != node.name]
        if node.is_local or (place := await self._place(node)) is None:
            return False
        if place in [await self._place(other) for other in others]:
            return False
        await anyio.to_thread.run_sync(self.dialler.host_keys.forget, *place)
        return True

    async def _place(self, node: Node) -> tuple[str, int] | None:
        """None where nobody can say: OpenSSH's configuration is damaged."""
        try:
            return await anyio.to_thread.run_sync(host_and_port, Target.of(node), self.dialler.config)
        except InvalidRequestError:
            return None

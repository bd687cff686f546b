"""What a worker needs before it can start, its model and its build: both asked for at once, both waited for."""

from dataclasses import dataclass

import anyio

from queen_rbee.domain.facts import DeviceFacts
from queen_rbee.hive_client import HiveClient
from queen_rbee.matchmaker import Matchmaker
from queen_rbee.provision_feed import ProvisionFeed
from queen_rbee.task import Task
from rbee_shared.error_groups import first_error
from rbee_shared.errors import BadPeerError, RbeeError


@dataclass(frozen=True)
class Supplies:
    """Has hives fetch models and make worker builds."""

    matchmaker: Matchmaker
    feed: ProvisionFeed

    async def gather(self, hive: HiveClient, task: Task, device: DeviceFacts) -> None:
        """Return when the model lies on that node and a worker build for the device is there.

        The first that fails ends the other. What is there already is not told about.

        Raises:
            RbeeError: why one of them cannot be had.
        """
        failure: RbeeError | None = None
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._have_model, hive, task, device.node)
                group.start_soon(self._have_build, hive, task, device)
        except* RbeeError as errors:
            failure = first_error(errors)
        if failure is not None:
            raise failure

    async def _have_model(self, hive: HiveClient, task: Task, node: str) -> None:
        asked = task.wish.model_ref
        answer = await hive.provision_model(asked)
        if not answer.done:
            task.narrator.tell("ask_model", f"asked hive to download {task.asked_model}", cute="📥")
            task.now(f"waiting for {task.asked_model} to be downloaded")
        end = await self.feed.outcome(hive, answer, task, node)
        if end.model is None:
            raise BadPeerError(f"the hive at {node} says it has {asked}, and not what it is")
        if not answer.done:
            task.narrator.tell("model_there", "model is downloaded by the hive", cute="📦")
        self.matchmaker.rename_model(asked, end.model.canonical_ref)

    async def _have_build(self, hive: HiveClient, task: Task, device: DeviceFacts) -> None:
        answer = await hive.provision_build(device.build_kind)
        if not answer.done:
            task.narrator.tell("ask_build", f"asked hive to prepare a {device.build_kind} worker", cute="🧰")
        await self.feed.outcome(hive, answer, task, device.node)
        if not answer.done:
            task.narrator.tell("build_there", "worker build is ready", cute="🔧")

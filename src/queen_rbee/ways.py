"""The ways to nodes: this machine, SSH, plain HTTP; and what is done about nodes by them."""

from pathlib import Path

from queen_rbee.hive_arrival import HiveArrival
from queen_rbee.hive_contacts import HiveContacts
from queen_rbee.hive_lifecycle import HiveLifecycle
from queen_rbee.matchmaker import Matchmaker
from queen_rbee.node_actions import NodeActions
from queen_rbee.node_keys import NodeKeys
from queen_rbee.node_stop import NodeStop
from queen_rbee.node_trial import NodeTrial
from queen_rbee.node_update import NodeUpdate
from queen_rbee.node_views import NodeViews
from queen_rbee.nodes.directory import NodeDirectory
from queen_rbee.nodes.http_waker import HttpWaker
from queen_rbee.nodes.link import Links
from queen_rbee.nodes.local_waker import LocalWaker
from queen_rbee.nodes.preparation import Preparation
from queen_rbee.nodes.remote_start import RemoteStart
from queen_rbee.nodes.ssh_waker import SshWaker
from queen_rbee.nodes.waker import Waker
from queen_rbee.outside import Outside
from queen_rbee.provision_feed import ProvisionFeed
from queen_rbee.ssh.dialling import Dialler
from queen_rbee.ssh.host_keys import HostKeys
from queen_rbee.voices import Voices
from rbee_shared.contracts.nodes import Transport
from rbee_shared.narration import Narrator


class Ways:
    """Wired once. `directory`: who is meant by a name."""

    def __init__(self, outside: Outside, contacts: HiveContacts, voices: Voices, narrator: Narrator) -> None:
        daemon, clocks = outside.daemon, outside.daemon.clocks
        ssh = Path.home() / ".ssh"
        self._outside = outside
        self._contacts = contacts
        self._hear = voices.hear
        self._arrival = HiveArrival(clocks, contacts)
        self._dialler = Dialler(
            host_keys=HostKeys(ours=daemon.home.root / "known_hosts", theirs=ssh / "known_hosts"),
            config=ssh / "config",
            connect_s=clocks.ssh_connect_s,
            login_s=clocks.ssh_login_s,
            keepalive_s=clocks.ssh_keepalive_s,
        )
        self._links = Links(self._dialler, outside.callbacks, clocks, narrator, outside.group)
        self._preparation = Preparation(daemon.home, outside.identity.token, outside.settings.wheels_dir)
        self.directory = NodeDirectory(outside.catalog, ssh / "config")

    def wakers(self) -> dict[Transport, Waker]:
        """For each kind of node the one that knows how to wake its hive."""
        daemon, group = self._outside.daemon, self._outside.group
        local = LocalWaker(
            home=daemon.home,
            clocks=daemon.clocks,
            identity=self._outside.identity,
            arrival=self._arrival,
            port=self._outside.settings.hive_port,
            hear=self._hear,
            stopping=self._is_stopping,
            group=group,
        )
        start = RemoteStart(
            clocks=daemon.clocks,
            identity=self._outside.identity,
            arrival=self._arrival,
            links=self._links,
            hear=self._hear,
            stopping=self._is_stopping,
            group=group,
        )
        remote = (self._links, self._outside.callbacks, self._preparation, start, self._arrival)
        return {"local": local, "ssh": SshWaker(*remote), "http": HttpWaker(*remote)}

    def actions(self, lifecycle: HiveLifecycle, views: NodeViews, matchmaker: Matchmaker) -> NodeActions:
        """What people have done about nodes."""
        catalog, preparation = self._outside.catalog, self._preparation
        stopping = NodeStop(lifecycle, self._links, preparation)
        updating = NodeUpdate(
            catalog=catalog,
            preparation=preparation,
            contacts=self._contacts,
            lifecycle=lifecycle,
            stopping=stopping,
            matchmaker=matchmaker,
            feed=ProvisionFeed(self._outside.session, self._outside.daemon.hub.publish),
        )
        return NodeActions(
            catalog=catalog,
            directory=self.directory,
            keys=NodeKeys(self.directory, self._dialler),
            links=self._links,
            preparation=preparation,
            trial=NodeTrial(preparation, self._arrival, self._links),
            stopping=stopping,
            updating=updating,
            lifecycle=lifecycle,
            views=views,
        )

    def _is_stopping(self) -> bool:
        return self._outside.daemon.stopping.is_requested

"""A host: a machine that has sshd, two accounts (root, rita) with keys, and knows whom it lets in.

sshd is OpenSSH's, with a configuration of its own; an option given here comes before the lab's and so replaces it.
"""

from dataclasses import dataclass, field

from tests.support.cluster import GENEROUS_S, wait_until
from tests.support.lab_disk import ACCOUNTS
from tests.support.lab_machine import Machine
from tests.support.lab_namespaces import tool
from typing_extensions import override

SSH_PORT = 22
_HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
_CONFIG = "/etc/ssh/sshd_config"
_LOG = "/var/log/sshd.log"
# no Subsystem: an sshd need not have SFTP, so nothing may depend on it
_DEFAULTS = {
    "HostKey": _HOST_KEY,
    "KbdInteractiveAuthentication": "no",
    "LogLevel": "VERBOSE",
    "PasswordAuthentication": "no",
    "PermitRootLogin": "prohibit-password",
    "PidFile": "/run/sshd.pid",
    "UseDNS": "no",
    "UsePAM": "no",
}


@dataclass
class Host(Machine):
    """`sshd_options` are what the next start of sshd gets beside the lab's own."""

    sshd_options: dict[str, str] = field(default_factory=dict)

    @override
    def power_on(self) -> None:
        """Boot, and start sshd with the options that it had."""
        super().power_on()
        self.start_sshd()

    # sshd

    def restart_sshd(self, **options: str) -> None:
        """Have only these options from now on; who is logged in stays so: `restart_sshd(AllowTcpForwarding="no")`."""
        self.stop_sshd()
        self.sshd_options = options
        self.start_sshd()

    def start_sshd(self) -> None:
        lines = [f"{name} {value}\n" for name, value in (*self.sshd_options.items(), *_DEFAULTS.items())]
        lines.append("SetEnv " + " ".join(f"{name}={value}" for name, value in self.env.items()) + "\n")
        self.write(_CONFIG, "".join(lines))
        started = self.run(["/usr/sbin/sshd", "-f", _CONFIG, "-E", _LOG], check=False)
        assert started.status == 0, self.sshd_log()
        wait_until(lambda: SSH_PORT in self.ports(), GENEROUS_S, f"sshd listens: {self.sshd_log()}")

    def stop_sshd(self) -> None:
        """Let nobody in any more; who is logged in stays so."""
        self.run(["sh", "-c", "kill $(cat /run/sshd.pid)"])
        wait_until(lambda: SSH_PORT not in self.ports(), GENEROUS_S, "sshd listens no more")

    def sshd_log(self) -> str:
        return self.path(_LOG).read_text(errors="replace")

    def told(self) -> str:
        """What sshd and the programs of ours have logged, for the report of a test that failed."""
        ours = sorted(self.files("/root/.rbee/logs", "/home/rita/.rbee/logs"))
        logs = [_LOG, *(path for path in ours if self.path(path).is_file())]
        return "".join(f"--- {self.name}:{log}\n{self.path(log).read_text(errors='replace')}" for log in logs)

    # keys

    @property
    def host_key(self) -> str:
        """`ssh-ed25519 AAAA…`."""
        return " ".join((self._on_disk(f"{_HOST_KEY}.pub")).split()[:2])

    @property
    def fingerprint(self) -> str:
        """`SHA256:…` of the host key."""
        return tool("ssh-keygen", "-l", "-f", "-", text=self.host_key).split()[1]

    def change_host_key(self) -> None:
        self.disk.make_key(_HOST_KEY, self.name)
        self.restart_sshd(**self.sshd_options)

    def public_key(self, user: str = "root") -> str:
        """Of that account's key pair, as a line of `authorized_keys`."""
        return self._on_disk(f"{ACCOUNTS[user].home}/.ssh/id_ed25519.pub")

    def authorise(self, public_key: str, user: str = "root") -> None:
        """Let the holder of that key in as `user`."""
        account = ACCOUNTS[user]
        self.disk.append(f"{account.home}/.ssh/authorized_keys", public_key, account)

    def know(self, other: "Host", user: str = "root") -> None:
        """Have the other's host key, under its names and its address, in that account's `known_hosts`."""
        account = ACCOUNTS[user]
        line = f"{other.name},{other.fqdn},{other.address} {other.host_key}\n"
        self.disk.append(f"{account.home}/.ssh/known_hosts", line, account)

    def set_shell(self, user: str, shell: str) -> None:
        """The login shell of `user`: `/usr/bin/fish`, `/usr/sbin/nologin`."""
        self.run(["usermod", "--shell", shell, user])

    def _on_disk(self, path: str) -> str:
        return (self.disk.path / path.lstrip("/")).read_text()

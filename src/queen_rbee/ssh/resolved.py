"""Where SSH goes for a target: by OpenSSH's configuration, and under which name it knows the host key there."""

from pathlib import Path

import asyncssh

from queen_rbee.ssh.target import Target
from rbee_shared.errors import InvalidRequestError

_SSH_PORT = 22


def host_and_port(target: Target, config: Path) -> tuple[str, int]:
    """As a host key of it is kept. Blocking; connects to nobody, and looks no name up.

    Raises:
        InvalidRequestError: `config`, OpenSSH's file, cannot be used.
    """
    try:
        options = asyncssh.SSHClientConnectionOptions(
            host=target.host,
            config=[str(config)] if config.is_file() else None,
            known_hosts=None,
            client_keys=None,
            agent_path=None,
            **({"port": target.port} if target.port else {}),
        )
    except (OSError, ValueError, RuntimeError) as error:  # the last: a home of nobody's
        raise InvalidRequestError(f"~/.ssh/config cannot be used for {target.node}: {error}") from None
    return options.host_key_alias or options.host, options.port or _SSH_PORT

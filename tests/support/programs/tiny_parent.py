"""Starts `tiny_daemon.py BODY` as its child, says the child's pid, and lives until it is killed."""

import sys
from pathlib import Path

import anyio

from rbee_shared.child import Command, running
from rbee_shared.handshake import Handshake


async def _main() -> None:
    daemon = Path(__file__).with_name("tiny_daemon.py")
    command = Command(
        [sys.executable, str(daemon), sys.argv[1], "--parent", "stdin"], stderr=Path(sys.argv[2]) / "child.stderr"
    )
    async with running(command, Handshake.from_here(), lambda _: None, stop_grace_s=5) as child:
        await child.wait_listening(30)
        print(child.pid, flush=True)
        await anyio.sleep_forever()


anyio.run(_main)

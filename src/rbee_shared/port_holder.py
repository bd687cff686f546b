"""Who listens on a port of this machine: for error messages that name the program in the way."""

from pathlib import Path

import psutil


def port_holder(port: int) -> str | None:
    """`name (pid N)` of the program that listens on `port`, where this user may know it."""
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return None
    for connection in connections:
        if (
            connection.status == psutil.CONN_LISTEN
            and connection.laddr
            and connection.laddr.port == port
            and connection.pid
        ):
            try:
                return f"{_program_of(psutil.Process(connection.pid))} (pid {connection.pid})"
            except psutil.Error:
                return None
    return None


def _program_of(process: psutil.Process) -> str:
    """Its name, or the script's when it is an interpreter: `queen-rbee` says more than `python3.11`."""
    name = process.name()
    if not name.startswith("python"):
        return name
    try:
        arguments = process.cmdline()[1:]
    except psutil.Error:
        return name
    for argument in arguments:
        if argument == "-c":
            return name
        if not argument.startswith("-"):
            return Path(argument).name
    return name

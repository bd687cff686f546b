"""Which ports are tried, in order; 0 lets the system choose."""


def hive_ports(wished: int, *, has_parent: bool) -> tuple[int, ...]:
    """A queen reads the port that was bound, so any will do; an operator gets the one he named or an error."""
    return (wished, 0) if has_parent and wished else (wished,)


def worker_port(hint: int | None, first: int) -> int:
    """Where a worker begins to look for a free port: it binds the first free one from there upwards."""
    return hint if hint is not None else first

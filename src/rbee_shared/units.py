"""Numbers as people read them. Everywhere else sizes are ints in bytes and times are floats in seconds."""

_STEP = 1000


def format_bytes(count: int) -> str:
    """`0 B`, `669 MB`, `1.1 GB`: decimal units, one decimal below ten."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if round(size) < _STEP or unit == "TB":  # rounded: 999.9 kB is 1.0 MB, never "1000 kB"
            break
        size /= _STEP
    decimals = 0 if unit == "B" or size >= 10 else 1  # noqa: PLR2004 - "9.5 GB", but "12 GB"
    return f"{size:.{decimals}f} {unit}"


def format_seconds(seconds: float) -> str:
    """`15 ms`, `1.2 s`, `75 s`, `4 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:  # noqa: PLR2004 - tenths matter only while they are visible
        return f"{seconds:.1f} s"
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"

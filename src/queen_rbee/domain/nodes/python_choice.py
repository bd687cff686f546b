"""Which Python of a machine rbee is to run on. Pure."""

from collections.abc import Iterable

from queen_rbee.domain.nodes.platform_tag import PlatformTag
from queen_rbee.domain.nodes.probe_report import Python

_NEWEST_TRIED = (3, 14)


def choose_python(pythons: Iterable[Python], queens: PlatformTag) -> Python | None:
    """The best that is fit: one like the queen's, which takes what she has at hand; else the newest that was tried."""
    fit = [python for python in pythons if python.is_fit]
    return max(fit, key=lambda python: _merit(python, queens), default=None)


def _merit(python: Python, queens: PlatformTag) -> tuple[bool, bool, tuple[int, ...], str]:
    newer_than_tried = python.version[:2] > _NEWEST_TRIED
    closeness = tuple(-number if newer_than_tried else number for number in python.version)
    is_like = python.tag is not None and python.tag.takes(queens)
    return is_like, not newer_than_tried, closeness, python.path

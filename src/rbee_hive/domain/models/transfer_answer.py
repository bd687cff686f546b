"""What a server's answer means for a transfer: take its bytes, go elsewhere, try again, begin anew, or give up.

The rule behind all of them: bytes go into the file only where the answer says that they belong there. A page of a
captive portal, a body of another size, a range that begins elsewhere never touch what was fetched before.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from rbee_shared.errors import DownloadFailedError, ForbiddenError, ModelNotFoundError, RbeeError
from rbee_shared.redaction import printable_line

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_SECONDS = re.compile(r"\d{1,9}")
_MAX_DIGITS = 18
_MAX_SAID = 200
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({408, 425, 429})
_NO_ACCESS = frozenset({401, 403})
_GONE = frozenset({404, 410})
_OK, _PARTIAL, _BAD, _NO_SUCH_RANGE, _BROKEN = 200, 206, 400, 416, 500


@dataclass(frozen=True)
class Asked:
    """A request: for the bytes from `from_bytes` on. `shown_url`: without secrets. `redirected`: not the first address.

    `size_bytes`: of the whole file, where it is known. `etag`: of what the bytes fetched so far came from.
    `expired_before`: the last address that we were redirected to had run out, too.
    """

    shown_url: str
    from_bytes: int = 0
    size_bytes: int | None = None
    etag: str | None = None
    redirected: bool = False
    expired_before: bool = False
    refused_hint: str | None = None


@dataclass(frozen=True)
class Head:
    """Status and headers of an answer, as they came."""

    status: int
    content_length: str | None = None
    content_range: str | None = None
    encoding: str | None = None
    media_type: str | None = None
    etag: str | None = None
    location: str | None = None
    retry_after: str | None = None
    said: str | None = None


@dataclass(frozen=True)
class Take:
    """The body begins at `start_bytes` of the file. `etag`: a strong one, fit for If-Range."""

    start_bytes: int
    size_bytes: int | None
    etag: str | None


@dataclass(frozen=True)
class Follow:
    """It is to be had elsewhere."""

    location: str


@dataclass(frozen=True)
class TryAgain:
    """Not this time. `from_zero`: what was fetched so far belongs to something else. `expired`: so has the address."""

    reason: str
    after_s: float | None = None
    from_zero: bool = False
    expired: bool = False


@dataclass(frozen=True)
class Complete:
    """There is nothing left to fetch."""

    size_bytes: int


@dataclass(frozen=True)
class Refused:
    """Trying again would not help."""

    error: RbeeError


Answer = Take | Follow | TryAgain | Complete | Refused


def judge(head: Head, asked: Asked, *, now_unix: float) -> Answer:
    """What to do about an answer to `asked`."""
    if head.status == _OK:
        return _whole(head, asked)
    if head.status == _PARTIAL:
        return _part(head, asked)
    if head.status in _REDIRECTS and head.location:
        return Follow(head.location)
    if head.status == _NO_SUCH_RANGE:
        return _beyond_the_end(head, asked)
    if head.status in _BUSY or head.status >= _BROKEN or head.status < _BAD:
        return TryAgain(_reason(head, asked), retry_after_s(head.retry_after, now_unix=now_unix))
    return _refusal(head, asked)


def retry_after_s(text: str | None, *, now_unix: float) -> float | None:
    """Seconds that a `Retry-After` header asks to wait, from either of its forms; None if it says nothing sensible."""
    if text is None:
        return None
    if _SECONDS.fullmatch(text.strip()):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.fromtimestamp(now_unix, UTC)).total_seconds())
    except (ValueError, OverflowError, TypeError):
        return None


def _whole(head: Head, asked: Asked) -> Answer:
    size_bytes = _number(head.content_length)
    if wrong := _not_these_bytes(head, asked, size_bytes):
        return wrong
    return Take(0, size_bytes if size_bytes is not None else asked.size_bytes, _strong(head.etag))


def _part(head: Head, asked: Asked) -> Answer:
    match = _CONTENT_RANGE.fullmatch(head.content_range or "")
    if match is None or match[1] is None or _number(match[1]) != asked.from_bytes:
        return TryAgain(f"{asked.shown_url} answered with another range than was asked for", from_zero=True)
    size_bytes = _number(match[3])
    if wrong := _not_these_bytes(head, asked, size_bytes):
        return wrong
    if None not in {asked.etag, head.etag} and head.etag != asked.etag:
        return TryAgain(f"the file at {asked.shown_url} changed while it was fetched", from_zero=True)
    return Take(asked.from_bytes, size_bytes if size_bytes is not None else asked.size_bytes, _strong(head.etag))


def _not_these_bytes(head: Head, asked: Asked, size_bytes: int | None) -> TryAgain | None:
    """Whether this body cannot be the file's bytes as they are."""
    if (head.encoding or "identity").lower() != "identity":
        return TryAgain(f"{asked.shown_url} sent the file compressed ({head.encoding!r}), which was not asked for")
    if (head.media_type or "").lower().startswith("text/html"):
        return TryAgain(f"{asked.shown_url} answered with a page for people, not with the file")
    if None not in {size_bytes, asked.size_bytes} and size_bytes != asked.size_bytes:
        return TryAgain(f"{asked.shown_url} has {size_bytes} bytes where {asked.size_bytes} were promised")
    return None


def _beyond_the_end(head: Head, asked: Asked) -> Answer:
    match = _CONTENT_RANGE.fullmatch(head.content_range or "")
    there = _number(match[3]) if match else None
    if there is not None and there == asked.from_bytes and asked.size_bytes in {None, there}:
        return Complete(there)
    return TryAgain(f"{asked.shown_url} has nothing from byte {asked.from_bytes} on", from_zero=True)


def _refusal(head: Head, asked: Asked) -> Answer:
    reason = _reason(head, asked)
    if asked.redirected and not asked.expired_before and head.status in _NO_ACCESS | _GONE:
        return TryAgain(reason, expired=True)  # a signed address runs out; the first one gives another
    if head.status in _NO_ACCESS:
        return Refused(ForbiddenError(reason, hint=asked.refused_hint or "Check the address, and who may read it."))
    if head.status in _GONE:
        return Refused(ModelNotFoundError(reason, hint="Check the address; the file may have been moved or removed."))
    return Refused(DownloadFailedError(reason, hint="Check the address."))


def _reason(head: Head, asked: Asked) -> str:
    said = printable_line(head.said or "")[:_MAX_SAID]
    return f"{asked.shown_url} answered {head.status}{f': {said}' if said else ''}"


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def _strong(etag: str | None) -> str | None:
    return etag if etag and not etag.startswith("W/") else None

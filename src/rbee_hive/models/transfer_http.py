"""The HTTP of a transfer: its client, one request at a time, and which secrets go to which host.

Redirects are followed here and not by the library: the headers of a source, its token among them, go to the source's
own scheme, host and port, and nowhere else. Proxy variables are obeyed, except for loopback.
"""

import ipaddress
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from rbee_hive.domain.models.transfer import Limits, Source
from rbee_hive.domain.models.transfer_answer import Head
from rbee_hive.models.transfer_watch import Watch
from rbee_shared.errors import DownloadFailedError
from rbee_shared.version import __version__

_MIB = 1024 * 1024
_READ_BUFFER_BYTES = 4 * _MIB  # measured: half as much again as with the default of 64 KiB
_MAX_URL = 16 * 1024
NETWORK_ERRORS = (aiohttp.ClientError, OSError, TimeoutError, ValueError)
"""What a request or its body may fail with. A ValueError is an address or a header that makes no sense."""


@asynccontextmanager
async def download_client(limits: Limits) -> AsyncGenerator[aiohttp.ClientSession]:
    """A client for `download.fetch`. It keeps no connection, no cookie, and reads no .netrc."""
    timeout = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=limits.connect_s)
    async with aiohttp.ClientSession(
        timeout=timeout,
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=_READ_BUFFER_BYTES,
        trust_env=False,
    ) as session:
        yield session


@asynccontextmanager
async def answered(
    http: aiohttp.ClientSession, source: Source, url: URL, from_bytes: int, etag: str | None, watch: Watch
) -> AsyncGenerator[aiohttp.ClientResponse]:
    """The head of an answer to a request for the bytes from `from_bytes` on; its body is still to come.

    `etag`: if they are still those that it names. Raises one of `NETWORK_ERRORS`.
    """
    headers = _request_headers(source, url, from_bytes, etag)
    response: aiohttp.ClientResponse | None = None
    with watch.connection():
        response = await http.get(url, allow_redirects=False, headers=headers, proxy=_proxy_for(url))
    if response is None:
        raise TimeoutError(watch.trouble)
    try:
        yield response
    finally:
        response.close()


def first_address(source: Source) -> URL:
    """Raises `DownloadFailedError` unless it is an http or https URL."""
    return _checked(source.url, source.url)


def next_address(here: URL, location: str) -> URL:
    """Where a redirect leads.

    Raises:
        DownloadFailedError: to no http or https URL, or from https to http.
    """
    there = _checked(location, shown(here), base=here)
    if here.scheme == "https" and there.scheme != "https":
        raise DownloadFailedError(f"{shown(here)} redirects to {shown(there)}, which is not encrypted")
    return there


def shown(url: URL) -> str:
    """For people and logs: without user, password, signature and fragment."""
    return str(url.with_user(None).with_query(None).with_fragment(None))


def _request_headers(source: Source, url: URL, from_bytes: int, etag: str | None) -> dict[str, str]:
    headers = {"User-Agent": f"rbee/{__version__}", "Accept-Encoding": "identity"}
    if url.origin() == URL(source.url).origin():
        headers |= source.headers
    if from_bytes > 0:
        headers["Range"] = f"bytes={from_bytes}-"
        if etag is not None:
            headers["If-Range"] = etag
    return headers


def head_of(response: aiohttp.ClientResponse) -> Head:
    names = {
        "content_length": "Content-Length", "content_range": "Content-Range", "encoding": "Content-Encoding",
        "media_type": "Content-Type", "etag": "ETag", "location": "Location", "retry_after": "Retry-After",
        "said": "X-Error-Message",
    }  # fmt: skip
    return Head(response.status, **{field: response.headers.get(name) for field, name in names.items()})


def why(error: Exception) -> str:
    """What a network error means, in words for people."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"no such host: {error.host}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect to {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | ConnectionError):
        return "the connection broke off"
    return str(error) or type(error).__name__


def _proxy_for(url: URL) -> str | None:
    """The proxy that the environment names for that address."""
    host = url.host or ""
    proxies = urllib.request.getproxies()
    if _is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    return proxies.get(url.scheme) or proxies.get("all")


def _checked(text: str, whose: str, base: URL | None = None) -> URL:
    as_it_is = text.isascii() and text.isprintable() and " " not in text  # a signature covers how it is written
    try:
        url = URL(text, encoded=as_it_is)
        url = url if base is None else base.join(url)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host or len(text) > _MAX_URL:
        what = "is no address to fetch from" if base is None else "redirects to no address to fetch from"
        raise DownloadFailedError(f"{whose[:200]!r} {what}", hint="Give an http:// or https:// URL of a file.")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")

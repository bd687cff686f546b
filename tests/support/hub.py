"""A local Hugging Face Hub that speaks the real one's HTTP to an unmodified huggingface_hub: API, resolve, CDN, faults.

Two servers of threads, as the real Hub is two hosts: the Hub answers JSON and redirects, the CDN sends the bytes of a
signed URL. As a program: `python -m tests.support.hub --root DIR --port 0`, where DIR holds owner/repo/files.
"""

import argparse
import hashlib
import hmac
import json
import random
import re
import socket
import sys
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.support.hub_modes import PRESETS, RIGHT, After, Body, Mode, Place, Script, hang_up_by_reset
from typing_extensions import override

_SIGNING_KEY = b"signs the CDN's URLs"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?")
_MIB = 1024 * 1024
_POINTER_BYTES = 135


@dataclass(frozen=True)
class Blob:
    """A file's content. `lfs` False: it lies in git itself, is served without a redirect, and has no SHA-256 listed."""

    path: Path
    size_bytes: int
    sha256: str
    git_oid: str
    lfs: bool = True

    @property
    def etag(self) -> str:
        return f'"{self.sha256 if self.lfs else self.git_oid}"'


@dataclass
class Repo:
    """A repository with one commit. Whose token is not among `readers` has no access where it is gated or private."""

    name: str
    files: dict[str, Blob]
    gated: Literal["auto", "manual", False] = False
    private: bool = False
    readers: frozenset[str] = frozenset()
    branches: frozenset[str] = frozenset({"main"})

    @property
    def commit(self) -> str:
        names = json.dumps({path: blob.sha256 for path, blob in self.files.items()}, sort_keys=True)
        return hashlib.sha1(names.encode()).hexdigest()

    def info(self, *, with_blobs: bool) -> dict[str, Any]:
        siblings = [{"rfilename": path, **(_sizes(blob) if with_blobs else {})} for path, blob in self.files.items()]
        flags = {"private": self.private, "gated": self.gated, "disabled": False}
        times = {"lastModified": "2024-05-01T10:00:00.000Z", "createdAt": "2024-04-01T10:00:00.000Z"}
        names = {"_id": "6630", "id": self.name, "modelId": self.name, "author": self.name.partition("/")[0]}
        counts = {"downloads": 7, "likes": 1, "tags": ["gguf"], "sha": self.commit, "usedStorage": 1}
        return {**names, **flags, **times, **counts, "siblings": siblings}


def _sizes(blob: Blob) -> dict[str, Any]:
    lfs = {"lfs": {"sha256": blob.sha256, "size": blob.size_bytes, "pointerSize": _POINTER_BYTES}}
    return {"size": blob.size_bytes, "blobId": blob.git_oid, **(lfs if blob.lfs else {})}


@dataclass
class Seen:
    """A request, and what became of it."""

    at: Place
    method: str
    path: str
    host: str
    authorization: str | None
    range: str | None
    status: int = 0
    sent_bytes: int = 0


@dataclass
class Hub:
    """What the test holds in its hand."""

    scratch: Path
    url: str = ""
    cdn_url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    script: Script = field(default_factory=Script)
    seen: list[Seen] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    signed_for_s: float = 3600.0
    dice: random.Random = field(default_factory=lambda: random.Random(4))
    stopping: threading.Event = field(default_factory=threading.Event)

    def add(self, name: str, files: Mapping[str, bytes | Path], *, lfs: bool = True, **facts: Any) -> Repo:
        """Have that repository, with these files; of a `Path` the file itself is served."""
        blobs = {path: self._blob(content, lfs=lfs) for path, content in files.items()}
        self.repos[name] = Repo(name, blobs, **facts)
        self.tokens |= self.repos[name].readers
        return self.repos[name]

    def clear(self) -> None:
        """Have nothing, do everything right, and remember no request."""
        self.repos.clear()
        self.script.clear()
        self.seen.clear()
        self.tokens.clear()

    def file_url(self, name: str, path: str) -> str:
        return f"{self.url}/{name}/resolve/{self.repos[name].commit}/{quote(path)}"

    def requests(self, at: Place, path: str | None = None, method: str = "GET") -> list[Seen]:
        return [s for s in self.seen if s.at == at and s.method == method and path in {None, s.path}]

    def sent_bytes(self, path: str | None = None) -> int:
        return sum(seen.sent_bytes for seen in self.requests("cdn", path))

    def _blob(self, content: bytes | Path, *, lfs: bool) -> Blob:
        path = content if isinstance(content, Path) else self._stored(content)
        size_bytes = path.stat().st_size
        sha256, sha1 = hashlib.sha256(), hashlib.sha1(f"blob {size_bytes}\0".encode())
        with path.open("rb") as file:
            while piece := file.read(8 * _MIB):
                sha256.update(piece)
                sha1.update(piece)
        return Blob(path, size_bytes, sha256.hexdigest(), sha1.hexdigest(), lfs)

    def _stored(self, content: bytes) -> Path:
        path = self.scratch / hashlib.sha256(content).hexdigest()
        path.write_bytes(content)
        return path


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, address: tuple[str, int], hub: Hub, handler: type["_Handler"]) -> None:
        super().__init__(address, handler)
        self.hub = hub
        self.open: set[socket.socket] = set()

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    @override
    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        with suppress(OSError):
            if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER):  # a reset: no orderly end before it
                self.close_request(request)
                return
        super().shutdown_request(request)

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """What both servers do: note the request, do what the script says, answer."""

    protocol_version = "HTTP/1.1"
    server: _Server
    seen: Seen

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        with suppress(ConnectionError):
            self.answer()

    do_HEAD = do_GET  # noqa: N815 - http.server names it

    def answer(self) -> None:
        raise NotImplementedError

    def note(self, at: Place, path: str) -> Mode:
        mode = self.server.hub.script.take(at, path)
        header = self.headers
        host, token, wanted = header.get("Host", ""), header.get("Authorization"), header.get("Range")
        self.seen = Seen(at, self.command, path, host, token, wanted)
        self.server.hub.seen.append(self.seen)
        if mode.headers_after_s:
            self.server.hub.stopping.wait(mode.headers_after_s)
        return mode

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.seen.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def say(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.head(status, {"Content-Length": str(len(body)), **headers})
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, status: int, message: str, code: str | None = None, more: Mapping[str, str] | None = None) -> None:
        """An error as the Hub words it."""
        headers = {"Content-Type": "application/json; charset=utf-8", "X-Error-Message": message, **(more or {})}
        if code is not None:
            headers["X-Error-Code"] = code
        self.say(status, json.dumps({"error": message}).encode(), headers)

    def went_wrong(self, mode: Mode) -> bool:
        """Answer as the script says where it leaves no room for a right answer."""
        more = {"Retry-After": mode.retry_after} if mode.retry_after else {}
        if mode.location is not None:
            self.say(mode.status or 302, b"", {"Location": mode.location})
        elif mode.plain_body is not None:
            self.say(mode.status or 200, mode.plain_body, {"Content-Type": "text/html"})
        elif mode.status is not None:
            self.fail(mode.status, f"scripted {mode.status}", mode.error_code, more)
        else:
            return False
        return True

    def send_file(self, blob: Blob, mode: Mode, extra: Mapping[str, str]) -> None:
        etag = mode.etag or blob.etag
        start, stop, status = self._wanted(blob, mode, etag)
        if status == 416:
            self.say(416, b"", {"Content-Range": f"bytes */{blob.size_bytes}"})
            return
        headers = {"Content-Type": "application/octet-stream", "ETag": etag, **extra}
        headers["Content-Length"] = str(stop - start + mode.length_off_by)
        if mode.ranges:
            headers["Accept-Ranges"] = "bytes"
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size_bytes}"
        self.head(status, headers)
        if self.command != "HEAD":
            self._send(Body(blob.path, start, stop, mode, self.server.hub.dice, self.server.hub.stopping))

    def _wanted(self, blob: Blob, mode: Mode, etag: str) -> tuple[int, int, int]:
        """First byte, byte behind the last, status."""
        match = _RANGE.fullmatch(self.headers.get("Range", "")) if mode.ranges else None
        if match is None or self.headers.get("If-Range", etag) != etag:
            return 0, blob.size_bytes, 200
        start = int(match[1])
        stop = min(int(match[2]) + 1 if match[2] else blob.size_bytes, blob.size_bytes)
        return (start, stop, 206) if start < stop else (start, stop, 416)

    def _send(self, body: Body) -> None:
        self.wfile.flush()
        ending: After = "close"
        try:
            ending = body.send(self.connection)
        finally:
            self.seen.sent_bytes = body.sent
            if ending != "nothing" or body.mode.length_off_by:
                self.close_connection = True
            if ending == "reset":
                hang_up_by_reset(self.connection)


class _HubHandler(_Handler):
    """huggingface.co: repositories, search, and where a file is to be had."""

    @override
    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/api/models":
            self._search()
        elif match := _API.fullmatch(path):
            self._info(match[1], match[2] or "main")
        elif match := _RESOLVE.fullmatch(urlsplit(self.path).path):
            self._resolve(unquote(match[1]), unquote(match[2]), unquote(match[3]))
        else:
            self.note("api", path)
            self.fail(404, "Sorry, we can't find the page you are looking for.")

    def _search(self) -> None:
        wanted = parse_qs(urlsplit(self.path).query)
        mode = self.note("api", "search")
        text, limit = wanted.get("search", [""])[0].lower(), int(wanted.get("limit", ["100"])[0])
        found = [repo for name, repo in self.server.hub.repos.items() if text in name.lower() and not repo.private]
        if not self.went_wrong(mode):
            self._json([repo.info(with_blobs=False) for repo in found[:limit]])

    def _info(self, name: str, revision: str) -> None:
        mode = self.note("api", name)
        if self.went_wrong(mode):
            return
        if (repo := self._readable(name)) is None:
            return
        if revision not in {repo.commit, *repo.branches}:
            self.fail(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            return
        self._json(repo.info(with_blobs="blobs" in parse_qs(urlsplit(self.path).query)))

    def _resolve(self, name: str, revision: str, path: str) -> None:
        mode = self.note("resolve", path)
        if self.went_wrong(mode) or (repo := self._readable(name)) is None or self._is_gated(repo):
            return
        if revision not in {repo.commit, *repo.branches}:
            self.fail(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        elif (blob := repo.files.get(path)) is None:
            self.fail(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": repo.commit})
        elif blob.lfs:
            self._redirect(repo, blob, path)
        else:
            self.send_file(blob, mode, {"X-Repo-Commit": repo.commit})

    def _redirect(self, repo: Repo, blob: Blob, path: str) -> None:
        linked = {"X-Linked-Size": str(blob.size_bytes), "X-Linked-Etag": f'"{blob.sha256}"'}
        location = f"{self.server.hub.cdn_url}{_signed(repo.name, path, time.time() + self.server.hub.signed_for_s)}"
        facts = {"X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes", "ETag": f'"{blob.sha256}"'}
        self.say(302, b"Found. Redirecting", {**facts, **linked, "Location": location})

    def _token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def _readable(self, name: str) -> Repo | None:
        """The repository if the caller may know of it; otherwise the refusal has been sent."""
        token, repo = self._token(), self.server.hub.repos.get(name)
        if token is not None and token not in self.server.hub.tokens:
            self.fail(401, "Invalid credentials in Authorization header")
        elif repo is not None and (not repo.private or token in repo.readers):
            return repo
        elif token is None:
            self.fail(401, "Invalid username or password.", None, {"WWW-Authenticate": 'Bearer realm="Authentication"'})
        else:
            self.fail(404, "Repository not found", "RepoNotFound")
        return None

    def _is_gated(self, repo: Repo) -> bool:
        token = self._token()
        if not repo.gated or token in repo.readers:
            return False
        what = f"Access to model {repo.name} is restricted"
        if token is None:
            self.fail(401, f"{what}. You must have access to it and be authenticated to access it.", "GatedRepo")
        else:
            self.fail(403, f"{what} and you are not in the authorized list.", "GatedRepo")
        return True

    def _json(self, body: object) -> None:
        self.say(200, json.dumps(body).encode(), {"Content-Type": "application/json; charset=utf-8"})


class _CdnHandler(_Handler):
    """The host that has the bytes: it knows signed URLs, and no tokens."""

    @override
    def answer(self) -> None:
        parts = urlsplit(self.path)
        name, path = _unsigned(parts.path)
        mode = self.note("cdn", path)
        expires = parse_qs(parts.query).get("Expires", ["0"])[0]
        if not hmac.compare_digest(self.path, _signed(name, path, float(expires))) or float(expires) < time.time():
            self.say(403, b"<Error><Code>AccessDenied</Code></Error>", {"Content-Type": "application/xml"})
        elif not self.went_wrong(mode):
            self.send_file(self.server.hub.repos[name].files[path], mode, {"Date": formatdate(usegmt=True)})


def _signed(name: str, path: str, expires_unix: float) -> str:
    place = f"/repos/{quote(name, safe='')}/{quote(path, safe='')}"
    signature = hmac.new(_SIGNING_KEY, f"{place} {expires_unix}".encode(), "sha256").hexdigest()
    return f"{place}?Expires={expires_unix}&Signature={signature}"


def _unsigned(place: str) -> tuple[str, str]:
    name, _, path = place.removeprefix("/repos/").partition("/")
    return unquote(name), unquote(path)


@contextmanager
def running_hub(
    scratch: Path, port: int = 0, *, address: str = "127.0.0.1", cdn_name: str = "localhost"
) -> Generator[Hub]:
    """A Hub and its CDN until the block is left; `cdn_name` is another name of `address`, and so another host."""
    hub = Hub(scratch)
    servers = [_Server((address, port), hub, _HubHandler), _Server((address, 0), hub, _CdnHandler)]
    hub.url = f"http://{address}:{servers[0].server_port}"
    hub.cdn_url = f"http://{cdn_name}:{servers[1].server_port}"
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        hub.stopping.set()
        for server in servers:
            server.shutdown()
            for connection in list(server.open):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            server.server_close()
        for thread in threads:
            thread.join()


def _main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--root", type=Path, required=True, help="directory with owner/repo/files")
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--mode", choices=sorted(PRESETS), action="append", default=[])
    chosen = options.parse_args()
    with running_hub(chosen.root, chosen.port) as hub:
        for folder in sorted(path for path in chosen.root.glob("*/*") if path.is_dir()):
            files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
            hub.add(str(folder.relative_to(chosen.root)), files)
        hub.script.add("*", *(PRESETS[mode]() for mode in chosen.mode))
        print(hub.url, flush=True)
        with suppress(KeyboardInterrupt):
            hub.stopping.wait()  # for ever: whoever started it ends it


if __name__ == "__main__":
    _main()

__all__ = ["RIGHT", "Blob", "Hub", "Mode", "Repo", "Seen", "running_hub"]

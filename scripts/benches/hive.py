"""How well a hive keeps models and workers: downloads, headers, the catalog, spawn, 200 workers killed.

Real parts on this machine, which they share: a local Hub that breaks connections, curl, a real hive with real workers.
Missing a target is said in the table; the exit status tells only whether it could be measured.
"""

import argparse
import os
import random
import shutil
import signal
import sqlite3
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import psutil
from measuring import Figure, machine, machine_line, print_figures
from tests.support.hive import LiveHive, gone, operators_hive
from tests.support.hub import Hub, Mode, running_hub
from tests.support.processes import open_fds

from rbee_hive.domain.models.gguf import read_header
from rbee_hive.models.catalog import ModelCatalog
from rbee_shared.sse import FrameSplitter

MIB = 1024 * 1024
REPO, FILE = "bench/big-GGUF", "big.Q4_0.gguf"
RESETS_PER_MIB = 0.05
CATALOG_ROWS = 10_000
LAYERS, WORDS = 80, 152_064

FIGURES = {
    "ratio": Figure(
        "download: MB/s to curl's",
        "the hive's rate over curl's, each reading the whole file once",
        unit="%",
        target=80,
        at_least=True,
    ),
    "rate": Figure(
        "download: rate", "size over seconds from the order to the end event, hashing included", unit="MB/s"
    ),
    "curl": Figure("download: rate of curl", "curl --output of the same file", unit="MB/s"),
    "resets": Figure(
        "resets: how many", f"connections reset; in each MiB sent with odds of {RESETS_PER_MIB:.0%}", unit=""
    ),
    "twice": Figure(
        "resets: bytes fetched twice",
        "bytes that came to the hive beyond the size, of the size",
        unit="%",
        target=5,
    ),
    "sent_twice": Figure(
        "resets: bytes sent twice", "likewise as the server counts: a reset throws away what is under way", unit="%"
    ),
    "reset_rate": Figure("resets: rate", "as above, through the resets", unit="MB/s"),
    "header": Figure(
        "header of a 70B model",
        f"{LAYERS} layers, {WORDS:,} words: read_header of a file in the page cache",
        unit="ms",
        target=50,
    ),
    "read": Figure(
        "catalog read, p99",
        f"{CATALOG_ROWS:,} rows, a writer beside it: find() by reference, 99th percentile",
        unit="ms",
        target=5,
    ),
    "ready": Figure("spawn -> ready", "POST /v1/workers/spawn?wait=ready of the storyteller in a hive that is up"),
    "cycles": Figure("spawn/kill cycles", "workers spawned, killed with KILL once ready, and stopped", unit=""),
    "fds": Figure("cycles: descriptors more", "of the hive, after the cycles less before them", unit="", target=0),
    "threads": Figure("cycles: threads more", "likewise", unit="", target=0),
    "zombies": Figure(
        "cycles: zombies", "children of the hive that are dead and not reaped, afterwards", unit="", target=0
    ),
}


def big_model(path: Path, size_bytes: int) -> Path:
    """A GGUF file without tensors, filled up with bytes that do not compress."""
    filler = random.Random(7).randbytes(MIB)  # noqa: S311 - any bytes that do not compress
    with path.open("wb") as file:
        file.write(_header())
        while file.tell() < size_bytes:
            file.write(filler[: size_bytes - file.tell()])
    return path


def _header(*, layers: int = 1, words: int = 16) -> bytes:
    tensors = [f"blk.{layer}.{part}.weight" for layer in range(layers) for part in _PARTS]
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), 5)]
    parts += [_text("general.architecture"), struct.pack("<I", 8), _text("llama")]
    parts += [_text("llama.block_count"), struct.pack("<II", 4, layers)]
    for key, kind, item in (
        ("tokens", 8, b""),
        ("scores", 6, struct.pack("<f", 0)),
        ("token_type", 5, struct.pack("<i", 1)),
    ):
        parts += [_text(f"tokenizer.ggml.{key}"), struct.pack("<IIQ", 9, kind, words)]
        parts += [_text(f"word{number}") for number in range(words)] if kind == 8 else [item * words]  # noqa: PLR2004
    parts += [_text(name) + struct.pack("<IQIQ", 1, 32, 0, 128 * number) for number, name in enumerate(tensors)]
    return b"".join(parts) + bytes(64 + 128 * len(tensors))


_PARTS = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


async def measure_downloads(scratch: Path, hub: Hub, size_bytes: int) -> None:
    path = big_model(scratch / FILE, size_bytes)
    hub.add(REPO, {FILE: path})
    url = hub.file_url(REPO, FILE)
    began_s = time.perf_counter()
    command = ["curl", "--silent", "--location", "--output", str(scratch / "by-curl"), url]
    await anyio.run_process(command)
    curl_mb_s = size_bytes / 1e6 / (time.perf_counter() - began_s)
    (scratch / "by-curl").unlink()
    FIGURES["curl"].values.append(curl_mb_s)
    async with new_hive(scratch, HF_ENDPOINT=hub.url) as hive:
        mb_s, _ = await timed_download(hive, size_bytes)
    FIGURES["rate"].values.append(mb_s)
    FIGURES["ratio"].values.append(100 * mb_s / curl_mb_s)
    hub.script.add(FILE, Mode(reset_per_mib=RESETS_PER_MIB))
    before, sent_before = len(hub.requests("cdn", FILE)), hub.sent_bytes(FILE)
    async with new_hive(scratch, HF_ENDPOINT=hub.url) as hive:
        mb_s, fetched_bytes = await timed_download(hive, size_bytes)
    FIGURES["reset_rate"].values.append(mb_s)
    FIGURES["resets"].values.append(len(hub.requests("cdn", FILE)) - before - 1)
    FIGURES["twice"].values.append(100 * (fetched_bytes - size_bytes) / size_bytes)
    FIGURES["sent_twice"].values.append(100 * (hub.sent_bytes(FILE) - sent_before - size_bytes) / size_bytes)
    hub.script.clear()


async def timed_download(hive: LiveHive, size_bytes: int) -> tuple[float, int]:
    """MB/s from the order to the end, and the bytes that came over the network."""
    began_s = time.perf_counter()
    answer = (await hive.send("POST", "/v1/models/provision", {"model": f"hf:{REPO}"})).json()
    last = await last_event(hive, answer["events_url"])
    seconds = time.perf_counter() - began_s
    if last["type"] != "end":
        raise SystemExit(f"the download failed: {last}")
    return size_bytes / 1e6 / seconds, int(str(last["bytes_fetched"]))


async def last_event(hive: LiveHive, events_url: str) -> dict[str, object]:
    splitter = FrameSplitter()
    last: dict[str, object] = {}
    headers = {"Authorization": "Bearer test-token-0123456789abcdef"}
    async with hive.client.stream("GET", hive.url + events_url, headers=headers, timeout=None) as stream:
        async for chunk in stream.aiter_raw():
            for frame in splitter.feed(chunk):
                last = frame.json() if frame.event != "message" else last
    return last


def measure_header(scratch: Path) -> None:
    path = scratch / "70b.gguf"
    path.write_bytes(_header(layers=LAYERS, words=WORDS))
    for _ in range(5):
        with path.open("rb") as file:
            began_s = time.perf_counter()
            read_header(file, path.stat().st_size)
            FIGURES["header"].values.append((time.perf_counter() - began_s) * 1000)


async def measure_catalog(scratch: Path) -> None:
    path = scratch / "models.db"
    async with ModelCatalog.open(path, lambda _: None):
        fill_catalog(path)
    async with ModelCatalog.open(path, lambda _: None) as catalog:
        times_ms: list[float] = []
        async with anyio.create_task_group() as group:
            group.start_soon(_keep_writing, catalog)
            for number in random.Random(7).sample(range(CATALOG_ROWS), 2000):  # noqa: S311
                began_s = time.perf_counter()
                await catalog.find(f"hf:o/r{number}")
                times_ms.append((time.perf_counter() - began_s) * 1000)
            group.cancel_scope.cancel()
    FIGURES["read"].values.append(statistics.quantiles(times_ms, n=100)[98])


def fill_catalog(path: Path) -> None:
    """Rows as downloads leave them, in one transaction."""
    rows, files = [], []
    for n in range(CATALOG_ROWS):
        place = f"/models/{n}/model-{n}.gguf"
        rows.append((f"model-{n}", f"Model {n}", f"o/r{n}", f"model-{n}.gguf", f"{n:040x}", place, n, 1, f"{n:064x}"))
        files.append((f"model-{n}", place, n, f"{n:064x}", n))
    with closing(sqlite3.connect(path)) as db, db:
        db.executemany(
            "INSERT INTO models (id, name, provider, reference, file, revision, local_path, size_bytes, "
            "downloaded_at_unix, sha256) VALUES (?, ?, 'hf', ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        db.executemany("INSERT INTO model_files VALUES (?, 0, ?, ?, ?, ?)", files)


async def _keep_writing(catalog: ModelCatalog) -> None:
    number = 0
    while True:
        await catalog.note_use(f"model-{number % CATALOG_ROWS}")
        number += 1


async def measure_workers(scratch: Path, cycles: int) -> None:
    async with new_hive(scratch, RBEE_CLOCK_RESTART_DELAY_S="3600") as hive:
        for _ in range(5):
            began_s = time.perf_counter()
            worker = await hive.spawn()
            FIGURES["ready"].values.append(time.perf_counter() - began_s)
            await hive.send("POST", f"/v1/workers/{worker['worker_id']}/stop")
        await _cycle(hive)
        before = _state_of(hive.process.pid)
        for number in range(cycles):
            await _cycle(hive)
            if sys.stderr.isatty():
                print(f"\r{number + 1} of {cycles} cycles", end="", file=sys.stderr)
        after = _state_of(hive.process.pid)
    FIGURES["cycles"].values.append(cycles)
    FIGURES["fds"].values.append(max(0, after[0] - before[0]))
    FIGURES["threads"].values.append(max(0, after[1] - before[1]))
    FIGURES["zombies"].values.append(after[2])


async def _cycle(hive: LiveHive) -> None:
    worker = await hive.spawn()
    record = await hive.worker(worker["worker_id"])
    os.kill(record["pid"], signal.SIGKILL)
    if not await gone(record["pid"], 10):
        raise SystemExit(f"worker {record['id']} outlived KILL")
    await hive.send("POST", f"/v1/workers/{worker['worker_id']}/stop")


def _state_of(pid: int) -> tuple[int, int, int]:
    """Descriptors, threads, zombies."""
    process = psutil.Process(pid)
    children = [child for child in process.children() if child.status() == psutil.STATUS_ZOMBIE]
    return len(open_fds(pid)), process.num_threads(), len(children)


@asynccontextmanager
async def new_hive(scratch: Path, **env: str) -> AsyncGenerator[LiveHive]:
    home = Path(tempfile.mkdtemp(dir=scratch)) / "home"
    async with operators_hive(home, env=env) as hive:
        yield hive
    shutil.rmtree(home.parent)


async def measure(options: argparse.Namespace, scratch: Path) -> None:
    measure_header(scratch)
    await measure_catalog(scratch)
    await measure_workers(scratch, options.cycles)
    with running_hub(scratch) as hub:
        await measure_downloads(scratch, hub, options.size_mb * 1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-mb", type=int, default=2000, help="of the model that is fetched")
    parser.add_argument("--cycles", type=int, default=200, help="workers spawned and killed")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args()
    facts = machine()
    if not options.json:
        print(machine_line(facts), end="\n\n")
    with tempfile.TemporaryDirectory(prefix="rbee-bench-") as directory:
        anyio.run(measure, options, Path(directory))
    print_figures(facts, list(FIGURES.values()), as_json=options.json)


if __name__ == "__main__":
    if shutil.which("curl") is None:
        raise SystemExit("this bench compares with curl: install it first")
    main()

"""The command line of `scripts/bench engine`, parsed and checked."""

import argparse
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from engine_bench.models import SHAPES
from engine_bench.serving import KvMode
from llm_worker_rbee.engine.threads import usable_cores

PARTIES = ("bare", "engine", "http", "peer")
MEASURES = (*PARTIES, "stall", "chat", "rss")
_EPILOG = """\
what --only names: bare (llama_decode in a loop), engine (the engine thread alone), http (through a worker), peer (the
other server), stall (gaps while a long prompt is read), chat (ten turns), rss (a worker's memory).

a peer is any server with a /v1/completions stream. It must serve the same file with the same total context in the same
mode of the cache: with --peer-command the bench starts it so, anew for each number of streams, and ends it. {model}
{slots} {n_ctx} {threads} {port} {kv} are filled in, and {no}: nothing in mode unified, `no-` in mode split:

  scripts/bench engine --peer-command 'llama-server -m {model} --host 127.0.0.1 --port {port} -np {slots} -c {n_ctx}
      --{no}kv-unified -t {threads} --cache-ram 0 --no-webui'
  scripts/bench engine --shapes mid --kv unified --streams 8 --only http,peer --peer unified=http://127.0.0.1:8080

the models are made on first use (a minute, 750 MB in $RBEE_CACHE, else ~/.cache/rbee). Take a machine with nothing else
to do: two programs that compute on the same cores slow each other down by far more than half.
"""


@dataclass(frozen=True)
class Options:
    """What is measured. `tokens` 0: each shape's own number."""

    shapes: Sequence[str]
    streams: Sequence[int]
    kv: Sequence[KvMode]
    rounds: int
    tokens: int
    only: frozenset[str]
    peer_urls: dict[str, str]
    peer_command: str | None
    peer_body: dict[str, Any]
    worker_options: Sequence[str]
    threads: int
    as_json: bool

    def has_peer(self, kv: KvMode) -> bool:
        return "peer" in self.only and (self.peer_command is not None or kv in self.peer_urls)


def parse_options(about: str | None) -> Options:
    """From `sys.argv`; says what is wrong and exits with 2."""
    parser = _parser(about)
    given = parser.parse_args()
    if given.peer and given.peer_command:
        parser.error("--peer and --peer-command are two ways to name one peer: give one")
    return Options(
        shapes=given.shapes,
        streams=given.streams,
        kv=given.kv,
        rounds=max(1, given.rounds),
        tokens=given.tokens,
        only=frozenset(given.only),
        peer_urls=dict(given.peer),
        peer_command=given.peer_command,
        peer_body=given.peer_body,
        worker_options=shlex.split(given.worker_options),
        threads=given.threads or usable_cores(),
        as_json=given.json,
    )


def _parser(about: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench engine",
        description=about,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    modes = get_args(KvMode)
    add("--shapes", type=_some_of(SHAPES), default=list(SHAPES), help="of models [tinyllama,mid]")
    add("--streams", type=_numbers, default=[1, 8, 16, 32], help="answers at a time [1,8,16,32]")
    add("--kv", type=_some_of(modes), default=list(modes), help="modes of the cache [unified,split]")
    add("--rounds", type=int, default=3, help="how often each party has its turn [3]")
    add("--tokens", type=int, default=0, help="of each answer [tinyllama: 128, mid: 192]")
    add("--only", type=_some_of(MEASURES), default=list(MEASURES), help=f"[{','.join(MEASURES)}]")
    add("--peer", type=_peer_url, action="append", default=[], metavar="MODE=URL", help="a peer that runs already")
    add("--peer-command", metavar="COMMAND", help="starts a peer; see below")
    add("--peer-body", type=_json_object, default={}, metavar="JSON", help="more fields of a peer's requests")
    add("--worker-options", default="", metavar="OPTIONS", help="of the worker: --worker-options='--queue 4'")
    add("--threads", type=int, default=0, help="that each party computes with [physical cores]")
    add("--json", action="store_true", help="one JSON object with every value")
    return parser


def _some_of(known: Sequence[str] | dict[str, Any]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: none of {', '.join(known)}")
        return names

    return parse


def _numbers(text: str) -> list[int]:
    numbers = [int(number) for number in text.split(",")]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError("streams are counted from 1")
    return numbers


def _peer_url(text: str) -> tuple[str, str]:
    kv, _, url = text.partition("=")
    if kv not in get_args(KvMode) or not url.startswith("http://"):
        raise argparse.ArgumentTypeError("write MODE=URL, as in unified=http://127.0.0.1:8080")
    return kv, url


def _json_object(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError("must be a JSON object") from None

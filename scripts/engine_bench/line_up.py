"""Who is measured at what: the cells that the options ask for, and how each party of one is started."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from engine_bench.models import SHAPES, model_file
from engine_bench.options import Options
from engine_bench.parties import Server
from engine_bench.serving import KvMode, Serving
from engine_bench.starting import child, peer, standing_peer, worker
from engine_bench.throughput import Cell, Starters

_CHILDREN = {"bare": "bare", "engine": "alone"}

ServerStarters = dict[str, Callable[[Serving], AbstractContextManager[Server]]]


def cells(options: Options, shapes: Sequence[str], streams: Sequence[int]) -> Iterator[Cell]:
    """Every combination; a model is made when it is needed first."""
    for shape in map(SHAPES.__getitem__, shapes):
        model = model_file(shape)
        for kv in options.kv:
            for number in streams:
                yield Cell(shape, model, kv, number, options.tokens or shape.answer_tokens, options.threads)


def starters(options: Options, kv: KvMode) -> Starters:
    """Everybody who is wanted, in the order in which they take turns."""
    line_up: Starters = {name: partial(child, module) for name, module in _CHILDREN.items() if name in options.only}
    if options.only & {"http", "rss"}:
        line_up["http"] = partial(worker, options=options.worker_options)
    if options.has_peer(kv):
        line_up["peer"] = _peer_starter(options, kv)
    return line_up


def servers(options: Options, kv: KvMode) -> ServerStarters:
    """A worker, and the peer where there is one."""
    line_up: ServerStarters = {"http": partial(worker, options=options.worker_options)}
    if options.has_peer(kv):
        line_up["peer"] = _peer_starter(options, kv)
    return line_up


def _peer_starter(options: Options, kv: KvMode) -> Callable[[Serving], AbstractContextManager[Server]]:
    if options.peer_command is not None:
        return partial(peer, options.peer_command, extra=options.peer_body)
    there = standing_peer(options.peer_urls[kv], options.peer_body)
    return lambda _: nullcontext(there)

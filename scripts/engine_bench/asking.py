"""Asking over HTTP, the same way whoever answers: what a dialect's requests look like, and the client for them."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engine_bench.answers import Answers, answers_of

_CLIENT = Path(__file__).with_name("client.py")
_TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Ask:
    """One request. `keeps_all`: the whole answer is told.

    `follows`: (request, frames) that it waits for; `ends_all`: the client hangs up on the others when it has ended.
    """

    prompt: str
    tokens: int
    follows: tuple[int, int] | None = None
    keeps_all: bool = False
    ends_all: bool = False


@dataclass(frozen=True)
class Dialect:
    """How a server is asked for greedy text of a fixed length. `marker`: what stands once in each piece of text."""

    path: str
    marker: str
    body: dict[str, Any]
    tokens_field: str
    cached_field: str
    extra: dict[str, Any] = field(default_factory=dict)

    def request(self, ask: Ask) -> dict[str, Any]:
        body = {**self.body, **self.extra, "prompt": ask.prompt, "max_tokens": ask.tokens}
        flags = {"follows": ask.follows, "keeps_all": ask.keeps_all, "ends_all": ask.ends_all}
        return {"path": self.path, "body": json.dumps(body), **flags}


_GREEDY = {"temperature": 0, "ignore_eos": True, "stream": True}
WORKER = Dialect(
    path="/execute",
    marker="event: token\n",
    body={**_GREEDY, "template": "raw"},
    tokens_field="tokens_out",
    cached_field="cached_tokens",
)
OPENAI = Dialect(
    path="/v1/completions",
    marker="data: {",
    body={**_GREEDY, "stream_options": {"include_usage": True}},
    tokens_field="completion_tokens",
    cached_field="cached_tokens",
)


def ask_all(url: str, dialect: Dialect, asks: Sequence[Ask]) -> Answers:
    """Send all, wait for all; `SystemExit` when one of them is refused or does not end."""
    parts = urlsplit(url)
    spec = {
        "host": parts.hostname,
        "port": parts.port,
        "marker": dialect.marker,
        "timeout_s": _TIMEOUT_S,
        "requests": [dialect.request(ask) for ask in asks],
    }
    client = subprocess.run(
        [sys.executable, "-I", "-S", str(_CLIENT)],
        input=json.dumps(spec) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if client.returncode:
        raise SystemExit(f"{url} could not be asked: {client.stderr.strip().rpartition(chr(10))[2]}")
    facts = json.loads(client.stdout)
    for stream, ask in zip(facts["streams"], asks, strict=True):
        _require_answer(url, stream)
        _drop_frames_without_text(stream, ask.tokens)
    if not facts["in_time"]:
        raise SystemExit(f"{url}: not all answers came within {_TIMEOUT_S:.0f} s")
    counts = [_number(dialect.tokens_field, stream["told"], sum(stream["frames"])) for stream in facts["streams"]]
    _require_length(url, counts, asks)
    return answers_of(facts, counts)


def cached_tokens(dialect: Dialect, told: str) -> int | None:
    """How many tokens of the prompt the server says it had already."""
    number = _number(dialect.cached_field, told, -1)
    return None if number < 0 else number


def text_of(dialect: Dialect, told: str) -> str:
    """The text of an answer that was kept whole."""
    key = "t" if dialect is WORKER else "text"
    return "".join(json.loads(text) for text in re.findall(rf'"{key}":\s*("(?:[^"\\]|\\.)*")', told))


def _require_answer(url: str, stream: dict[str, Any]) -> None:
    if " 200" not in stream["status"] or not stream["frames"]:
        raise SystemExit(f"{url} gave no answer: {stream['status']}\n{stream['told']}")


def _drop_frames_without_text(stream: dict[str, Any], tokens: int) -> None:
    """What comes after the last token: a reason to end, the usage."""
    surplus = sum(stream["frames"]) - tokens
    while surplus > 0:
        taken = min(surplus, stream["frames"][-1])
        surplus -= taken
        stream["frames"][-1] -= taken
        if not stream["frames"][-1]:
            stream["frames"].pop()
            stream["at_s"].pop()


def _require_length(url: str, counts: Sequence[int], asks: Sequence[Ask]) -> None:
    are_cut = any(ask.ends_all for ask in asks)
    for count, ask in zip(counts, asks, strict=True):
        if count != ask.tokens and (ask.ends_all or not are_cut):
            raise SystemExit(f"{url} gave {count} tokens instead of {ask.tokens}: nothing to compare")


def _number(name: str, told: str, otherwise: int) -> int:
    """The last one of that name."""
    found = re.findall(rf'"{name}":\s*(\d+)', told)
    return int(found[-1]) if found else otherwise

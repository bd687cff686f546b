"""Whoever generates: a bare loop or the engine thread in a child, the worker or a peer over HTTP; all asked alike."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.request import urlopen

from engine_bench.answers import Answers, answers_of
from engine_bench.asking import Ask, Dialect, ask_all
from engine_bench.words import Prompt

_STOP_S = 30.0
_HEALTH_S = 10.0


class Party(Protocol):
    """Answers any number of prompts at once, up to its slots."""

    def answer(self, prompts: Sequence[Prompt], tokens: int) -> Answers:
        """Every answer to its full length."""
        ...


@dataclass(frozen=True)
class Child:
    """`engine_bench.bare` or `engine_bench.alone`."""

    name: str
    process: subprocess.Popen[str]

    def answer(self, prompts: Sequence[Prompt], tokens: int) -> Answers:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"prompts": [prompt.ids for prompt in prompts], "tokens": tokens}) + "\n")
        self.process.stdin.flush()
        return answers_of(self.read(), [tokens] * len(prompts))

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self.process.wait(_STOP_S)}")
        return dict(json.loads(line))


@dataclass(frozen=True)
class Server:
    """Anything that answers over HTTP. `pid` None: it was there before."""

    url: str
    dialect: Dialect
    pid: int | None = None

    def answer(self, prompts: Sequence[Prompt], tokens: int) -> Answers:
        return self.ask([Ask(prompt.text, tokens) for prompt in prompts])

    def ask(self, asks: Sequence[Ask]) -> Answers:
        return ask_all(self.url, self.dialect, asks)

    def peak_rss_bytes(self) -> int | None:
        """The most memory the process has had so far; None where the system does not tell."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        except OSError:
            return None
        lines = [line.split() for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(lines[0][1]) * 1024

    def health(self) -> dict[str, Any]:
        with urlopen(f"{self.url}/health", timeout=_HEALTH_S) as answer:  # noqa: S310 - our own http URL
            return dict(json.load(answer))

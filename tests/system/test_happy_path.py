"""One command with everything off: what the user sees, what the events say, and that nothing stays behind."""

import json
import re
import threading
from typing import Any

import pytest
from pydantic import TypeAdapter
from tests.support.cluster import Cluster, Line

from rbee_shared.contracts.events import TaskEvent

# every line of the happy path, in causal order; what stands in braces is compared with the events
HAPPY_PATH = [
    r"keeper: starting inference request for builtin:storyteller",
    r"keeper: queen is asleep, waking her on a free port",
    r"keeper: queen is awake and healthy \([\d.]+ m?s\)",
    r"keeper: connected to queen's event stream",
    r"queen: no hives found; adding the local machine",
    r"queen: waking the hive at localhost on a free port",
    r"hive: starting pool manager on port 0",
    r"hive: HTTP server ready on port \d+",
    r"queen: first heartbeat from hive localhost; asking what it has",
    r"queen: hive localhost has CPU \d+ cores \d+ GB; models 1, workers 0",
    r"queen: picked CPU on localhost: the only device there that fits the request",
    r"queen: asking hive if there is room on CPU",
    r"queen: there is room on CPU for builtin:storyteller \(needs [\d.]+ MB, [\d.]+ GB free\)",
    r"hive: waking a cpu worker on CPU with .*storyteller.gguf",
    r"llm-worker: HTTP server ready on :\d+",
    r"device-manager: initialized CPU device",
    r"model-loader: loading model .*storyteller.gguf",
    r"model-loader: model loaded, [\d.]+ MB",
    r"llm-worker: reporting ready",
    r"queen: cpu worker is awake and ready",
    r"queen: connection to worker established; starting inference",
    r"llama-backend: starting inference \(prompt 19 characters, at most 256 tokens\)",
    r"tokenizer: tokenized prompt \((?P<prompt_tokens>\d+) tokens\)",
    r"llama-backend: cache: fresh",
    r"llama-backend: generated 10 tokens",
    r"llama-backend: inference complete: (?P<tokens_out>\d+) tokens in [\d.]+ m?s \(\d+ tok/s\)",
    r"queen: worker finished inference",
    r"keeper: asking queen to cascade shutdown",
    r"queen: shutting down hives",
    r"hive: stopping 1 worker",
    r"llm-worker: shutting down gracefully",
    r"llm-worker: freeing [\d.]+ MB",
    r"llm-worker: exiting",
    r"hive: worker worker-cpu-\w+ is gone, its [\d.]+ MB are free again",
    r"queen: goodbye",
]


def test_one_command_wakes_all_streams_an_answer_and_leaves_nothing(cluster: Cluster) -> None:
    seen: set[str] = set()
    keeper = cluster.start("rbee-keeper", "infer", "write a short story")
    watcher = threading.Thread(target=_watch, args=(cluster, keeper.process, seen))
    watcher.start()
    status = keeper.wait()
    watcher.join()

    assert status == 0, keeper.stderr
    assert seen == {"rbee-keeper", "queen-rbee", "rbee-hive", "llm-worker-rbee"}, "the leak check sees them alive"
    facts = _in_order(keeper.stderr.splitlines())
    assert 60 <= int(facts["tokens_out"]) <= 200
    assert len(keeper.stdout) > 150
    assert "queen:" not in keeper.stdout
    assert _longest_gap_s(keeper.lines) < 2.0
    cluster.leaves_nothing()


def test_json_events_are_the_contract_each_once_under_one_correlation_id(cluster: Cluster) -> None:
    keeper = cluster.keeper("infer", "write a short story", "--json", "--seed", "3")

    assert keeper.wait() == 0
    events = [json.loads(line) for line in keeper.stdout.splitlines()]
    adapter: TypeAdapter[Any] = TypeAdapter(TaskEvent)
    for event in events:
        adapter.validate_python(event)
    types = [event["type"] for event in events]
    assert types.count("started") == types.count("end") == 1
    assert "error" not in types
    tokens = [event for event in events if event["type"] == "token"]
    assert [token["i"] for token in tokens] == list(range(len(tokens)))
    assert types.index("started") < types.index("token")
    end = events[types.index("end")]
    assert sum(len(token["ids"]) for token in tokens) in {end["tokens_out"], end["tokens_out"] - 1}, "all but the last"
    assert end["receipt"]["decision"] == "start_worker"
    assert end["stop_reason"] == "EOS"
    narrations = [event for event in events if event["type"] == "narration"]
    assert len({event["correlation_id"] for event in narrations}) == 1
    assert len({(event["actor"], event["action"], event["human"], event["at_ms"]) for event in narrations}) == len(
        narrations
    )


@pytest.mark.parametrize("prompt", ["hello", "who are you", "erzähl mir was über Zürich 🐝"])
def test_the_answer_alone_is_on_stdout_when_quiet(cluster: Cluster, prompt: str) -> None:
    keeper = cluster.keeper("infer", prompt, "--quiet")

    assert keeper.wait() == 0
    assert keeper.stderr == ""
    assert re.search(r"\w+ \w+ \w+", keeper.stdout)


def test_same_seed_same_text_and_greedy_is_repeatable(cluster: Cluster) -> None:
    cluster.standing_queen()
    told = {
        options: {cluster.keeper("infer", "write a short story", "--quiet", *options).stdout for _ in range(3)}
        for options in [("--seed", "7"), ("--temperature", "0")]
    }
    other = cluster.keeper("infer", "write a short story", "--quiet", "--seed", "8").stdout

    assert [len(texts) for texts in told.values()] == [1, 1]
    assert other not in told["--seed", "7"]
    assert cluster.keeper("queen", "stop").wait() == 0


def _watch(cluster: Cluster, process: Any, seen: set[str]) -> None:
    while process.poll() is None:
        for program in ("rbee-keeper", "queen-rbee", "rbee-hive", "llm-worker-rbee"):
            if cluster.processes(program):
                seen.add(program)


def _in_order(lines: list[str]) -> dict[str, str]:
    """The named facts of the happy path; every line of it must come, in this order."""
    facts: dict[str, str] = {}
    rest = iter(lines)
    for pattern in HAPPY_PATH:
        for line in rest:
            if (match := re.search(pattern, line)) is not None:
                facts |= match.groupdict()
                break
        else:
            raise AssertionError(f"{pattern!r} is missing or out of order in:\n" + "\n".join(lines))
    return facts


def _longest_gap_s(lines: list[Line]) -> float:
    times = sorted(line.at_s for line in lines)
    return max(later - earlier for earlier, later in zip([0.0, *times], times, strict=False))

"""What a scraper gets, read back by the library's own parser."""

import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from llm_worker_rbee.metrics import Gauges, Metrics
from rbee_shared.contracts.tasks import StopReason
from rbee_shared.contracts.workers import MemoryParts

NOTHING = Gauges(
    slots=4,
    slots_busy=0,
    waiting=0,
    kv_cells=0,
    kv_cells_used=0,
    engine_steps=0,
    resident_memory_bytes=0,
    memory=None,
)
OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def _scrape(metrics: Metrics, gauges: Gauges = NOTHING) -> dict[str, float]:
    text, _ = metrics.render(gauges)
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in families(text.decode())
        for sample in family.samples
    }


def test_an_answer_from_its_wait_to_its_end() -> None:
    metrics = Metrics()
    metrics.waited(0.3)
    metrics.begun(7)
    metrics.first_token(0.004)
    metrics.token_gap(0.0009)
    metrics.token_gap(0.03)
    metrics.preempted()
    metrics.ended(StopReason.EOS, tokens_out=3, decode_s=0.5, cached_tokens=5)
    seen = _scrape(metrics)

    for name, value in {
        "requests_total": 1,
        "prompt_tokens_total": 7,
        "cached_tokens_total": 5,
        "cache_hits_total": 1,
        "cache_misses_total": 0,
        "tokens_out_total": 3,
        "decode_seconds_total": 0.5,
        "preemptions_total": 1,
        "answers_total{EOS}": 1,
        "answers_total{CANCELLED}": 0,
        "queue_wait_seconds_bucket{0.2}": 0,
        "queue_wait_seconds_bucket{0.5}": 1,
        "ttft_seconds_sum": 0.004,
        "ttft_seconds_count": 1,
        "inter_token_seconds_bucket{0.0005}": 0,
        "inter_token_seconds_bucket{0.001}": 1,
        "inter_token_seconds_bucket{+Inf}": 2,
        "inter_token_seconds_bucket{60.0}": 2,
    }.items():
        assert seen[f"rbee_worker_{name}"] == value, name


def test_refusals_failures_and_answers_without_a_cached_prefix() -> None:
    metrics = Metrics()
    metrics.refused()
    metrics.failed()
    metrics.ended(StopReason.CANCELLED, tokens_out=0, decode_s=0.0, cached_tokens=0)
    seen = _scrape(metrics)

    names = ("requests_refused_total", "requests_failed_total", "cache_misses_total", "answers_total{CANCELLED}")
    assert [seen[f"rbee_worker_{name}"] for name in names] == [1, 1, 1, 1]
    assert seen["rbee_worker_cache_hits_total"] == 0


def test_gauges_are_those_of_the_scrape_and_steps_only_grow() -> None:
    metrics = Metrics()
    memory = MemoryParts(weights_bytes=10, kv_bytes=20, compute_bytes=30)
    _scrape(metrics, Gauges(4, 1, 2, 1024, 99, engine_steps=5, resident_memory_bytes=7, memory=memory))
    seen = _scrape(metrics, Gauges(4, 3, 0, 1024, 55, engine_steps=9, resident_memory_bytes=8, memory=memory))

    names = ("slots", "slots_busy", "waiting", "kv_cells", "kv_cells_used", "engine_steps_total")
    assert [seen[f"rbee_worker_{name}"] for name in names] == [4, 3, 0, 1024, 55, 9]
    assert [seen[f"rbee_worker_memory_bytes{{{part}}}"] for part in ("weights", "kv", "compute")] == [10, 20, 30]
    assert seen["rbee_worker_resident_memory_bytes"] == 8


def test_two_in_one_process_share_nothing() -> None:
    first, second = Metrics(), Metrics()
    first.begun(1)

    assert _scrape(first)["rbee_worker_requests_total"] == 1
    assert _scrape(second)["rbee_worker_requests_total"] == 0
    assert all(name.startswith("rbee_worker_") for name in _scrape(second)), "nothing of the process or platform"


@pytest.mark.parametrize(
    ("accept", "kind"), [("", "text/plain"), ("*/*", "text/plain"), (OPEN_METRICS, "application/openmetrics-text")]
)
def test_the_form_is_the_one_a_scraper_asks_for(accept: str, kind: str) -> None:
    body, content_type = Metrics().render(NOTHING, accept=accept)
    text = body.decode()
    parse = open_families if kind != "text/plain" else families

    assert content_type.startswith(f"{kind}; version=")
    assert {family.type for family in parse(text)} == {"counter", "gauge", "histogram"}
    described = set(re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE))
    assert described == set(re.findall(r"^# TYPE (\S+) \S", text, re.MULTILINE))
    assert len(described) > 20

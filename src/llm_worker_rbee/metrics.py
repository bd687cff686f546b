"""Counters of one worker, in Prometheus's text form."""

from dataclasses import dataclass, field

from rbee_shared.contracts.tasks import StopReason


@dataclass
class Metrics:
    """Counts since the process started. `ttft`: from receiving a request to its first token."""

    requests: int = 0
    refused: int = 0
    failed: int = 0
    tokens_out: int = 0
    prompt_tokens: int = 0
    ttft_s_sum: float = 0.0
    ttft_count: int = 0
    decode_s_sum: float = 0.0
    ended: dict[StopReason, int] = field(default_factory=lambda: dict.fromkeys(StopReason, 0))

    def render(self, *, slots_total: int, slots_busy: int, rss_bytes: int, engine_steps: int) -> str:
        """The exposition, format version 0.0.4."""
        lines = [
            *_metric("requests_total", "counter", "Answers begun.", self.requests),
            *_metric(
                "requests_refused_total", "counter", "Requests refused because all slots were busy.", self.refused
            ),
            *_metric("requests_failed_total", "counter", "Answers that ended with an error.", self.failed),
            *_metric("tokens_out_total", "counter", "Tokens generated.", self.tokens_out),
            *_metric("prompt_tokens_total", "counter", "Prompt tokens of the answers begun.", self.prompt_tokens),
            *_metric("decode_seconds_total", "counter", "Time spent generating, after the prompt.", self.decode_s_sum),
            *_metric("engine_steps_total", "counter", "Decode steps.", engine_steps),
            *_metric("slots", "gauge", "Answers that can be generated at a time.", slots_total),
            *_metric("slots_busy", "gauge", "Answers in progress.", slots_busy),
            *_metric("resident_memory_bytes", "gauge", "Resident memory of the process.", rss_bytes),
            "# HELP rbee_worker_ttft_seconds From receiving a request to its first token.",
            "# TYPE rbee_worker_ttft_seconds summary",
            f"rbee_worker_ttft_seconds_sum {self.ttft_s_sum}",
            f"rbee_worker_ttft_seconds_count {self.ttft_count}",
            "# HELP rbee_worker_answers_total Complete answers by the reason they ended.",
            "# TYPE rbee_worker_answers_total counter",
            *(f'rbee_worker_answers_total{{stop_reason="{reason}"}} {count}' for reason, count in self.ended.items()),
        ]
        return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, text: str, value: float) -> tuple[str, str, str]:
    full = f"rbee_worker_{name}"
    return f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {value}"

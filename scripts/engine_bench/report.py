"""The tables for people. Each is printed as soon as its figures are there: a whole run takes most of an hour."""

from collections.abc import Sequence

from engine_bench import chat, memory, stall
from engine_bench.answers import summary
from engine_bench.chat import ChatResult
from engine_bench.stall import StallResult
from engine_bench.throughput import CellResult, Ratio

Result = CellResult | StallResult | ChatResult

MEANING = """\
tok/s: while all streams run, from the last one's first token to the first one's last token; median of the rounds.
together: the share of all tokens that came in that time, in the worst round. Where it is small tok/s says little.
whole: all tokens over the time from the first request to the last token, prompts included; median of the rounds.
TTFT: from sending a request to its first token, over all streams of all rounds. longest gap: between two tokens.
taker: CPU of whoever took the tokens, as a share of one core: the client over HTTP; of bare and engine the process.
bare: llama_decode in a loop. engine: the engine thread alone. http: through the worker. peer: another server.
Ratios are medians of each round's own ratio. Memory is judged by the worker's peak (VmHWM)."""


def show(result: Result) -> None:
    """One table with what follows from it."""
    match result:
        case CellResult():
            _print_cell(result)
        case StallResult():
            _print_stall(result)
        case ChatResult():
            _print_chat(result)


def _print_cell(result: CellResult) -> None:
    """One shape, mode and number of streams."""
    cell = result.cell
    print(f"{cell.shape.name}, {cell.kv} cache, streams: {cell.streams}, {cell.tokens} tokens an answer")
    rows = [["", "tok/s", "together", "whole", "TTFT p50", "p99", "longest gap", "taker"]]
    for name, rounds in result.rounds.items():
        figures = summary(rounds)
        rows.append(
            [
                name,
                f"{figures.tok_s:,.1f}",
                f"{figures.together_share:.0%}",
                f"{figures.whole_tok_s:,.1f}",
                *map(_ms, (figures.ttft_p50_s, figures.ttft_p99_s, figures.longest_gap_s)),
                f"{figures.taker_cpu_share:.1%}",
            ]
        )
    _print_table(rows)
    for one in result.ratios():
        print(f"  {one.ours} / {one.theirs}: {_ratio_text(one)}")
    if result.memory is not None:
        _print_memory(result.memory)
    print(flush=True)


def _print_stall(result: StallResult) -> None:
    """The running streams' gaps, round by round."""
    print(f"no stall: mid, {result.kv} cache, {result.party}: 4 streams run, then a 4,000-token prompt comes")
    rows = [["round", "median gap", "p99", "longest before", "longest during", "prefill", "during / median"]]
    for number, one in enumerate(result.rounds, 1):
        gaps = (one.normal_gap_s, one.normal_p99_s, one.longest_before_s, one.longest_gap_s, one.prefill_s)
        rows.append([str(number), *map(_ms, gaps), f"{one.ratio:.2f}"])
    _print_table(rows)
    print(f"  median of the rounds: {result.ratio:.2f}{_at_most(result.ratio, stall.TARGET)}\n", flush=True)


def _print_chat(result: ChatResult) -> None:
    """Turn by turn."""
    print(f"prefix: {result.shape}, {result.kv} cache, {result.party}: a conversation of {len(result.turns)} turns")
    rows = [["turn", "prompt", "new", "cached", "TTFT", "per new token"]]
    for number, turn in enumerate(result.turns, 1):
        cached = "?" if turn.cached_tokens is None else str(turn.cached_tokens)
        times = (_ms(turn.ttft_s), _ms(turn.ttft_per_new_token_s))
        rows.append([str(number), str(turn.prompt_tokens), str(turn.new_tokens), cached, *times])
    _print_table(rows)
    growth = f"{result.growth:.2f}{_at_most(result.growth, chat.TARGET)}"
    print(f"  TTFT of turns 8-10 / turns 2-4, with the same new tokens: {growth}\n", flush=True)


def _print_memory(told: memory.Memory) -> None:
    source = "as the worker says" if told.is_told else "computed from the shape"
    parts = f"file {_mib(told.file_bytes)} + KV {_mib(told.kv_bytes)} + compute {_mib(told.compute_bytes)}"
    verdict = f"{told.ratio:.2f}{_at_most(told.ratio, memory.TARGET)}"
    print(f"  peak RSS {_mib(told.peak_rss_bytes)} / ({parts}, {source}): {verdict}")


def _ratio_text(one: Ratio) -> str:
    target = "" if one.target is None else f"  (target: >= {one.target})"
    both = (("tok/s", one.running), ("whole", one.whole))
    return ", ".join(f"{name} {value:.3f}{_at_least(value, one.target)}" for name, value in both) + target


def _at_least(value: float, target: float | None) -> str:
    return "" if target is None else " met" if value >= target else " MISSED"


def _at_most(value: float, target: float) -> str:
    return f" {'met' if value <= target else 'MISSED'}  (target: <= {target})"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.0f} MiB"


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for name, *numbers in rows:
        cells = [text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True)]
        print("  " + "  ".join([name.ljust(widths[0]), *cells]).rstrip())

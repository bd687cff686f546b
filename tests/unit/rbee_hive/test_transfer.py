"""The decisions of a transfer: pace, tries, room, and what an answer means."""

import string
from dataclasses import replace
from email.utils import formatdate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rbee_hive.domain.models.transfer import MIB, Limits, Pace, Tries, require_space
from rbee_hive.domain.models.transfer_answer import (
    Answer,
    Asked,
    Complete,
    Follow,
    Head,
    Refused,
    Take,
    TryAgain,
    judge,
    retry_after_s,
)  # fmt: skip
from rbee_shared.errors import DiskFullError

NOW = 1_700_000_000.0
LIMITS = Limits()
ASKED = Asked("http://h/x", from_bytes=40, size_bytes=100, etag='"a"')
FIRST = Asked("http://h/x", size_bytes=100)
PART = Head(206, content_range="bytes 40-99/100", etag='"a"')


def _paced(*marks: tuple[float, int]) -> Pace:
    pace = Pace.begin(*marks[0])
    for now_s, done_bytes in marks[1:]:
        pace = pace.noted(now_s, done_bytes, LIMITS)
    return pace


def test_a_rate_and_what_is_left() -> None:
    pace = _paced((0, 0), (1, 10 * MIB), (2, 20 * MIB))
    assert pace.per_s == 10 * MIB
    assert pace.eta_s(50 * MIB) == 3
    assert pace.eta_s(None) is None
    assert _paced((0, 7)).per_s is None
    assert _paced((0, 7), (1, 7)).eta_s(100) is None


def test_the_rate_is_of_lately() -> None:
    assert _paced(*((s, 100 * s) for s in range(60)), *((60 + s, 6000 + s) for s in range(10))).per_s == 1


def test_a_connection_that_brings_nothing_is_given_up_and_one_that_waits_for_our_disk_is_not() -> None:
    assert _paced((0, 0), (59, 0)).trouble(LIMITS) is None
    assert "no byte" in (_paced((0, 0), (60, 0)).trouble(LIMITS) or "")
    assert _paced((0, 0), (30, 10 * MIB), (60, 10 * MIB)).trouble(LIMITS) is None
    assert Pace.begin(0, 0).noted(59, 0, LIMITS, excused=True).moved_at_s == 59
    excused = Pace.begin(0, 5).noted(25, 5, LIMITS).noted(29, 5, LIMITS, excused=True)
    assert excused.trouble(replace(LIMITS, stall_s=20)) is None


def test_a_connection_that_trickles_is_given_up_after_its_window_and_a_slow_one_never() -> None:
    assert _paced(*((s, 100 * s) for s in range(60))).trouble(LIMITS) is None
    assert "only 100 B a second" in (_paced(*((s, 100 * s) for s in range(61))).trouble(LIMITS) or "")
    assert _paced(*((s, 5000 * s) for s in range(500))).trouble(LIMITS) is None


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 10**12)), min_size=1, max_size=60))
def test_a_pace_remembers_no_more_than_its_window(steps: list[tuple[float, int]]) -> None:
    now_s, pace = 0.0, Pace.begin(0, 0)
    for step_s, done_bytes in steps:
        now_s += step_s
        pace = pace.noted(now_s, done_bytes, LIMITS)
        assert sum(at_s < now_s - LIMITS.slow_window_s for at_s, _ in pace.marks) <= 1
        assert pace.per_s is None or pace.per_s == pace.per_s


def test_six_tries_without_progress_and_longer_pauses() -> None:
    tries, pauses = Tries(), []
    while True:
        tries = tries.after_failure(0, LIMITS)
        if (pause_s := tries.pause_s(LIMITS)) is None:
            break
        pauses.append(round(pause_s, 3))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6]


def test_progress_resets_the_count_and_bytes_that_came_twice_are_none() -> None:
    tries = Tries(5, 10 * MIB)
    assert tries.after_failure(11 * MIB, LIMITS) == Tries(0, 11 * MIB)
    assert tries.after_failure(11 * MIB - 1, LIMITS).pause_s(LIMITS) is None
    assert tries.after_failure(9 * MIB, LIMITS) == Tries(6, 10 * MIB)


def test_the_servers_own_wish_is_honoured_up_to_a_limit() -> None:
    assert Tries(1).pause_s(LIMITS, 7) == 7
    assert Tries(1).pause_s(LIMITS, 1e9) == LIMITS.longest_retry_after_s
    assert Tries(3).pause_s(LIMITS, 0.0) == pytest.approx(0.4)
    assert Tries(6).pause_s(LIMITS, 7) is None


@given(st.lists(st.integers(0, 10**11), max_size=200))
def test_there_are_never_endless_tries_for_the_same_bytes(reached: list[int]) -> None:
    tries, given_up = Tries(), 0
    for done_bytes in [*reached, *[0] * LIMITS.tries]:
        tries = tries.after_failure(done_bytes, LIMITS)
        given_up += tries.pause_s(LIMITS) is None
    assert given_up


def test_room_is_wanted_with_a_margin() -> None:
    require_space(MIB, LIMITS.disk_margin_bytes + MIB, LIMITS, where="/m")
    require_space(0, 0, LIMITS, where="/m")
    with pytest.raises(DiskFullError) as refusal:
        require_space(MIB, LIMITS.disk_margin_bytes + MIB - 1, LIMITS, where="/m")
    assert refusal.value.details["missing_bytes"] == MIB


@pytest.mark.parametrize(
    ("head", "asked", "answer"),
    [
        pytest.param(Head(200, "100", etag='"a"'), FIRST, Take(0, 100, '"a"'), id="the whole"),
        pytest.param(Head(200), FIRST, Take(0, 100, None), id="no length: what was promised"),
        pytest.param(Head(200, "100", etag='W/"a"'), FIRST, Take(0, 100, None), id="a weak etag is none"),
        pytest.param(Head(200, "100"), ASKED, Take(0, 100, None), id="the whole although a part was asked for"),
        pytest.param(PART, ASKED, Take(40, 100, '"a"'), id="the rest"),
        pytest.param(replace(PART, etag=None), ASKED, Take(40, 100, None), id="the rest, unnamed"),
        pytest.param(
            replace(PART, content_range="bytes 40-99/*"), ASKED, Take(40, 100, '"a"'), id="of an unsaid whole"
        ),
        pytest.param(
            replace(PART, content_range=f"bytes 40-99/{'9' * 5000}"),
            ASKED,
            Take(40, 100, '"a"'),
            id="a number without end",
        ),
        pytest.param(Head(302, location="/y"), ASKED, Follow("/y"), id="elsewhere"),
        pytest.param(
            Head(416, content_range="bytes */40"), replace(ASKED, size_bytes=None), Complete(40), id="the end"
        ),
    ],
)
def test_answers_that_lead_on(head: Head, asked: Asked, answer: Answer) -> None:
    assert judge(head, asked, now_unix=NOW) == answer


@pytest.mark.parametrize(
    ("head", "from_zero"),
    [
        pytest.param(replace(PART, etag='"b"'), True, id="it changed"),
        pytest.param(replace(PART, content_range="bytes 41-99/100"), True, id="another range"),
        pytest.param(replace(PART, content_range="bytes */100"), True, id="no range"),
        pytest.param(replace(PART, content_range="nonsense"), True, id="nonsense"),
        pytest.param(replace(PART, content_range=None), True, id="nothing said"),
        pytest.param(replace(PART, content_range="bytes 40-99/101"), False, id="of another whole"),
        pytest.param(Head(200, "99"), False, id="another size"),
        pytest.param(Head(200, "100", encoding="gzip"), False, id="compressed"),
        pytest.param(Head(200, media_type="text/html; charset=utf-8"), False, id="a captive portal"),
        pytest.param(Head(416, content_range="bytes */100"), True, id="beyond the end, and not the end"),
        pytest.param(Head(416), True, id="beyond an unsaid end"),
        pytest.param(Head(302), False, id="elsewhere, but where"),
        pytest.param(Head(304), False, id="not modified"),
        pytest.param(Head(500), False, id="broken"),
    ],
)
def test_answers_after_which_it_is_tried_again(head: Head, from_zero: bool) -> None:
    answer = judge(head, ASKED, now_unix=NOW)
    assert isinstance(answer, TryAgain)
    assert answer.from_zero is from_zero


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_a_busy_server_is_asked_again_when_it_says(status: int) -> None:
    answer = judge(Head(status, retry_after="7"), ASKED, now_unix=NOW)
    assert isinstance(answer, TryAgain)
    assert (answer.after_s, answer.from_zero) == (7, False)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "DOWNLOAD_FAILED"), (401, "FORBIDDEN"), (403, "FORBIDDEN"), (404, "MODEL_NOT_FOUND"),
        (410, "MODEL_NOT_FOUND"), (418, "DOWNLOAD_FAILED"), (451, "DOWNLOAD_FAILED"),
    ],
)  # fmt: skip
def test_a_refusal_is_final(status: int, code: str) -> None:
    answer = judge(Head(status, said="sorry\x1b[2J\n" + "x" * 9999), ASKED, now_unix=NOW)
    assert isinstance(answer, Refused)
    assert answer.error.code == code
    assert answer.error.message.isprintable()
    assert len(answer.error.message) < 300


def test_an_address_that_ran_out_is_asked_for_once_more() -> None:
    away = replace(ASKED, redirected=True, refused_hint="set a token")
    again = judge(Head(403), away, now_unix=NOW)
    assert isinstance(again, TryAgain)
    assert again.expired
    assert isinstance(judge(Head(403), replace(away, expired_before=True), now_unix=NOW), Refused)
    assert isinstance(judge(Head(400), away, now_unix=NOW), Refused)
    here = judge(Head(403), replace(away, redirected=False), now_unix=NOW)
    assert isinstance(here, Refused)
    assert here.error.hint == "set a token"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0), (" 3 ", 3.0), ("0", 0.0), (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0), ("Wed, 15 Nov 2023 00:00:00", 1_700_006_400 - NOW), ("", None),
        ("-1", None), ("soon", None), ("9" * 500, None), (None, None), ("Wed, 99 Nov 2023 00:00:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_in_both_forms(text: str | None, seconds: float | None) -> None:
    assert retry_after_s(text, now_unix=NOW) == seconds


_WORDS = (
    st.none() | st.text(max_size=40) | st.sampled_from(["bytes 40-99/100", "100", "bytes */40", '"a"', "gzip", "-5"])
)


@given(st.integers(100, 599), st.lists(_WORDS, min_size=8, max_size=8), st.sampled_from([ASKED, FIRST]))
@example(206, ["100", "bytes 40-99/100", None, None, None, None, None, None], ASKED)
@example(429, [None] * 6 + ["Thu, 01 Jan 0000 00:00:00 -9999", None], ASKED)
def test_whatever_a_server_says_bytes_go_only_where_they_belong(
    status: int, words: list[str | None], asked: Asked
) -> None:
    answer = judge(Head(status, *words), asked, now_unix=NOW)
    if isinstance(answer, Take):
        assert answer.start_bytes in {0, asked.from_bytes}
        assert answer.size_bytes == asked.size_bytes
    if isinstance(answer, TryAgain):
        assert answer.after_s is None or answer.after_s >= 0
        assert set(answer.reason) & set(string.printable)

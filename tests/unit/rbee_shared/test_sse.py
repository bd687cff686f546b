"""Frames survive any way of cutting the bytes, and text that looks like a line end to a text library."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_shared import sse
from rbee_shared.contracts.events import TokenEvent, token_frame
from rbee_shared.errors import BadPeerError

texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=30)


@given(st.lists(texts, max_size=8), st.data())
def test_any_cut_gives_the_same_frames(tokens: list[str], data: st.DataObject) -> None:
    ending = data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    stream = b"".join(token_frame(text, i, [i]) for i, text in enumerate(tokens)).replace(b"\n", ending)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    splitter, frames = sse.FrameSplitter(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        frames += splitter.feed(stream[start:end])
    frames += splitter.feed(b"" if ending != b"\r" else b": end")  # a last lone CR is held for its LF

    assert [frame.json()["t"] for frame in frames] == tokens
    assert all(frame.event == "token" for frame in frames)


@given(texts, st.integers(0, 10**6), st.lists(st.integers(0, 10**6), max_size=5))
def test_a_token_frame_is_the_contract_in_bytes(text: str, index: int, ids: list[int]) -> None:
    (frame,) = sse.FrameSplitter().feed(token_frame(text, index, ids))

    event = TokenEvent.model_validate(frame.json())
    assert (event.t, event.i, list(event.ids)) == (text, index, ids)
    assert frame.raw == token_frame(text, index, ids)
    frame.raw.decode("ascii")


def test_comments_ids_and_multi_line_data() -> None:
    splitter = sse.FrameSplitter()
    frames = splitter.feed(b": ping\n\nid: 7\nevent: x\ndata: {\ndata: }\n\ndata: [DONE]\n\n")

    assert [(f.event, f.data, f.id) for f in frames] == [("x", b"{\n}", "7"), ("message", b"[DONE]", None)]


def test_encode_repeats_the_type_and_numbers_stand_in_front() -> None:
    raw = sse.encode("end", {"a": "\u2028"})
    (frame,) = sse.FrameSplitter().feed(sse.numbered(3, raw))

    assert (frame.id, json.loads(frame.data)) == ("3", {"type": "end", "a": "\u2028"})


def test_a_frame_without_bound_or_object_is_refused() -> None:
    with pytest.raises(BadPeerError, match="larger than 4 MiB"):
        sse.FrameSplitter().feed(b"data: " + b"x" * (sse.MAX_FRAME_BYTES + 1))
    (frame,) = sse.FrameSplitter().feed(b"event: end\ndata: 5\n\n")
    with pytest.raises(BadPeerError, match="no JSON object"):
        frame.json()

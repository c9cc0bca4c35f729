"""Framing: any cut of the bytes gives the same messages, and bytes that are none are named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_iso.isolate.wire import ADOPT, HEADER, LARGEST, MAGIC, UNBEGUN, CallFrame, Frame, Garbage, Unframer, frame, pack_call, unpack_call

frames = st.builds(Frame, st.integers(ADOPT, UNBEGUN), st.integers(0, 2**64 - 1), st.binary(max_size=300))


@given(st.lists(frames, max_size=8), st.data())
def test_any_cut_unframes_to_the_same_messages(sent: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(frame(*each) for each in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    unframer, received = Unframer(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += unframer.feed(stream[start:end])
    assert received == sent
    assert not unframer.partial


@given(frames, st.integers(0))
def test_half_a_frame_is_no_message(one: Frame, seed: int) -> None:
    stream = frame(*one)
    unframer = Unframer()
    assert unframer.feed(stream[: seed % len(stream)]) == []


@given(st.binary(min_size=HEADER.size).filter(lambda data: data[0] != MAGIC or not ADOPT <= data[1] <= UNBEGUN))
def test_bytes_of_somebody_else_are_garbage(data: bytes) -> None:
    with pytest.raises(Garbage):
        Unframer().feed(data)


def test_a_size_beyond_all_measure_is_garbage() -> None:
    with pytest.raises(Garbage):
        Unframer().feed(HEADER.pack(MAGIC, ADOPT, LARGEST + 1, 0))


finite = st.floats(0, 1e12)


cores = st.lists(st.integers(0, 2**16 - 1), max_size=5).map(tuple)


@given(st.builds(CallFrame, st.integers(0, 2**32 - 1), st.booleans(), finite, finite, st.binary(), st.text(), cores, st.binary()))
def test_a_call_arrives_as_it_was_sent(call: CallFrame) -> None:
    assert unpack_call(pack_call(call)) == call

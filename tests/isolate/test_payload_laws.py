"""What is packed is unpacked as it was, small or large, in the pipe or beside it."""

from __future__ import annotations

import os
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stem_iso.isolate import payload
from tests.isolate.calling import own_descriptors

LARGE = payload.LARGE
around = st.sampled_from([0, 1, 63, 64, 65, 65_535, 65_536, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE])
blobs = around.flatmap(lambda size: st.sampled_from([bytes(size), bytearray(size), "x" * size, "ß" * (size // 2)]))
values = st.recursive(st.none() | st.integers() | st.text(max_size=20) | blobs, lambda inner: st.lists(inner, max_size=4), max_leaves=6)


def through(value: object, outside: bool = True) -> object:
    packed = payload.pack(value, outside=outside)
    assert outside or packed.descriptor is None
    assert packed.descriptor is None or len(packed.data) < 4096, "what is large does not go through the pipe"
    return payload.unpack(packed.data, None if packed.descriptor is None else payload.mapped(packed.descriptor))


class Holding:
    def __init__(self, *buffers: object) -> None:
        self.buffers = buffers

    def __reduce_ex__(self, protocol: object) -> object:
        return Holding, tuple(pickle.PickleBuffer(buffer) for buffer in self.buffers)


@settings(max_examples=60, deadline=None)
@given(values, st.booleans())
def test_a_value_comes_back(value: object, outside: bool) -> None:
    assert through(value, outside) == value


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(around, st.booleans()), max_size=5), st.booleans())
def test_buffers_come_back_each_as_writable_as_it_was(sizes: list[tuple[int, bool]], outside: bool) -> None:
    given_ = [bytearray(os.urandom(size)) if writable else os.urandom(size) for size, writable in sizes]
    back = through(Holding(*given_), outside)
    assert isinstance(back, Holding)
    assert [bytes(buffer) for buffer in back.buffers] == [bytes(buffer) for buffer in given_]  # type: ignore[call-overload]
    assert [memoryview(buffer).readonly for buffer in back.buffers] == [not writable for _, writable in sizes]  # type: ignore[arg-type]


def test_more_buffers_than_one_write_takes() -> None:
    buffers = [bytearray([number % 256]) * LARGE for number in range(40)]
    back = through([Holding(buffer) for buffer in buffers])
    assert isinstance(back, list)
    assert [bytes(each.buffers[0][:1]) for each in back] == [bytes(buffer[:1]) for buffer in buffers]


def test_a_buffer_that_is_not_contiguous_is_refused_and_nothing_is_left() -> None:
    before = own_descriptors()
    with pytest.raises((pickle.PicklingError, BufferError)):
        payload.pack(Holding(memoryview(bytearray(4 * LARGE))[::2]))
    assert own_descriptors() <= before


def test_whether_it_was_raised_is_known_without_unpickling() -> None:
    assert payload.raised(payload.pack(1, raised=True).data)
    assert not payload.raised(payload.pack(1).data)
    assert not payload.raised(b"")


def test_memory_that_did_not_come_is_missed() -> None:
    packed = payload.pack(bytes(LARGE))
    assert packed.descriptor is not None
    os.close(packed.descriptor)
    with pytest.raises(payload.UnreadablePayload, match="did not come"):
        payload.unpack(packed.data)


def test_a_mapping_keeps_no_descriptor() -> None:
    before = own_descriptors()
    views = []
    for _ in range(50):
        packed = payload.pack(Holding(bytearray(LARGE)))
        assert packed.descriptor is not None
        views.append(payload.unpack(packed.data, payload.mapped(packed.descriptor)))
    assert own_descriptors() <= before

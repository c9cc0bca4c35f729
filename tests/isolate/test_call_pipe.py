"""The core's end of the call pipe: bytes in order whatever fits, descriptors with their frames, nothing to a number of another's."""

from __future__ import annotations

import os
import socket

import pytest

from stem_iso.isolate import wire
from stem_iso.isolate.engine.call_pipe import CallPipe
from stem_iso.isolate.linux import receive_with_descriptors, send_with_descriptor
from tests.isolate.calling import own_descriptors


@pytest.fixture
def pipe() -> CallPipe:
    return CallPipe()


def other_end(pipe: CallPipe) -> socket.socket:
    return socket.socket(fileno=pipe.theirs)


def memfd(text: bytes) -> int:
    descriptor = os.memfd_create("test", os.MFD_CLOEXEC)
    os.write(descriptor, text)
    return descriptor


def test_what_does_not_fit_goes_out_in_order_with_its_descriptor(pipe: CallPipe) -> None:
    theirs, first, sent = other_end(pipe), b"a" * (1 << 20), memfd(b"with the second")
    assert not pipe.send(first)
    assert not pipe.send(b"second", sent)
    assert not pipe.send(b"third")
    received, descriptors = b"", list[int]()
    while len(received) < len(first) + len(b"secondthird"):
        pipe.flush()
        data, came = receive_with_descriptors(theirs, 1 << 16)
        received += data
        descriptors += came
    assert received == first + b"second" + b"third"
    assert [os.pread(each, 100, 0) for each in descriptors] == [b"with the second"]
    for each in (*descriptors, sent):
        os.close(each)
    pipe.close()
    theirs.close()


def test_a_descriptor_comes_with_its_reply_and_more_than_one_is_garbage(pipe: CallPipe) -> None:
    theirs, sent = other_end(pipe), memfd(b"one")
    before = own_descriptors()
    send_with_descriptor(theirs, wire.frame(wire.REPLY, 1, b"xx"), sent)
    assert [frame.payload for frame in pipe.receive()] == [b"xx"]
    taken = pipe.take_descriptor()
    assert taken is not None and os.pread(taken, 10, 0) == b"one"
    assert pipe.take_descriptor() is None
    os.close(taken)
    for _ in range(2):
        send_with_descriptor(theirs, wire.frame(wire.SEND, 1), sent)
    pipe.receive()
    with pytest.raises(wire.Garbage, match="more than one descriptor"):
        pipe.receive()
    assert own_descriptors() <= before
    os.close(sent)
    pipe.close()
    theirs.close()


def test_a_closed_pipe_writes_to_nobody(pipe: CallPipe) -> None:
    theirs, number = other_end(pipe), pipe.link.fileno()
    stranger, reader = socket.socketpair()
    pipe.close()
    os.dup2(stranger.fileno(), number)  # the number is another's now
    assert pipe.send(b"for the isolate")
    reader.setblocking(False)
    with pytest.raises(BlockingIOError):
        reader.recv(1)
    os.close(number)
    for each in (stranger, reader, theirs):
        each.close()

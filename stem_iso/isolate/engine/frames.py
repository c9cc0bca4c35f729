"""The reader of frames: what a frame of an isolate, or of a shared host, says. Decides nothing, changes nothing.

    frame ──> read ──> ReadyFrame · BrokenFrame · LogFrame · ReplyFrame · RequestFrame · BeatFrame        of every isolate
                       PrintFrame · BegunFrame · UnbegunFrame · LimitFrame · PongFrame                    of shared hosts alone
                  └──> Garbage, where the frame cannot mean anything now

Rules
 1. Any frame may be a handler's forgery: it may write to our pipe. What is wrong in a frame is Garbage, and costs the isolate that sent it.
 2. A frame of a call that a shared host has ended meanwhile is late, not wrong: `read` returns None.
"""

from __future__ import annotations

from typing import NamedTuple

from stem_iso.isolate import wire
from stem_iso.isolate.engine import endings
from stem_iso.isolate.engine.isolate import Isolate
from stem_iso.isolate.engine.output import STDERR, STDOUT
from stem_iso.isolate.wire import (
    BEAT,
    BEGUN,
    BROKEN,
    LIMIT,
    LIMIT_HEAD,
    LOG,
    PONG,
    PRINT,
    READY,
    REPLY,
    REQUEST,
    SEND,
    THREAD,
    UNBEGUN,
    Frame,
    Garbage,
)
from stem_iso.outcome import Outcome

STREAMS = {1: STDOUT, 2: STDERR}


class ReadyFrame(NamedTuple):
    """It has booted. `payload`: what its runner says of itself."""

    payload: bytes


class BrokenFrame(NamedTuple):
    """Its boot failed, with this traceback."""

    traceback: str


class LogFrame(NamedTuple):
    """A record of `logging`."""

    level: int
    logger: str
    text: bytes
    details: bytes


class ReplyFrame(NamedTuple):
    """The call has ended. `left`: what the handler left behind (`child.leftovers`)."""

    outcome: Outcome
    left: int


class RequestFrame(NamedTuple):
    """The handler called its context. `waits`: for an answer."""

    payload: bytes
    waits: bool


class BeatFrame(NamedTuple):
    """The handler says that it is alive."""


class PrintFrame(NamedTuple):
    stream: str
    text: bytes


class BegunFrame(NamedTuple):
    """The call runs in this thread, as the kernel counts threads."""

    thread: int


class UnbegunFrame(NamedTuple):
    """The call came too late: the core was taking it back."""


class LimitFrame(NamedTuple):
    """`level`: SOFT_LIMIT, HARD_LIMIT or SILENCE of `wire`; `elapsed`: seconds since the call was sent."""

    level: int
    elapsed: float
    stack: str


class PongFrame(NamedTuple):
    """The loop of a shared host turns. `number`: the ping's."""

    number: int


OfEveryIsolate = ReadyFrame | BrokenFrame | LogFrame | ReplyFrame | RequestFrame | BeatFrame
OfSharedHosts = PrintFrame | BegunFrame | UnbegunFrame | LimitFrame | PongFrame
IsolateFrame = OfEveryIsolate | OfSharedHosts


def read(isolate: Isolate, frame: Frame) -> IsolateFrame | None:
    """What the frame says; None where it is late. Raises Garbage."""
    kind, number, payload = frame
    if kind == PONG and isolate.shared:  # its number is a ping's
        return PongFrame(number)
    if isolate.caller_of(number) is not None:
        return _of_call(kind, payload, isolate.shared)
    if kind == READY and not isolate.booted:
        return ReadyFrame(payload)
    if kind == BROKEN and not isolate.booted:
        return BrokenFrame(payload.decode(errors="replace"))
    if kind == LOG and isolate.call is None:  # a module that is imported, or a start hook, logs as well
        return LogFrame(*wire.log_record(payload))
    if isolate.shared and REQUEST <= kind <= UNBEGUN and 0 < number <= isolate.page.started:
        return None
    raise Garbage(f"kind {kind} of no call")


def _of_call(kind: int, payload: bytes, shared: bool) -> IsolateFrame:
    if kind == REPLY:
        if len(payload) < 2:
            raise Garbage("an empty reply")
        of_reply = endings.of_hosted_reply if shared else endings.of_reply
        return ReplyFrame(of_reply(payload[0], payload[2:]), payload[1])
    if kind in (REQUEST, SEND):
        return RequestFrame(payload, waits=kind == REQUEST)
    if kind == BEAT:
        return BeatFrame()
    if kind == LOG:
        return LogFrame(*wire.log_record(payload))
    if shared:
        return _of_hosted_call(kind, payload)
    raise Garbage(f"kind {kind} during a call")


def _of_hosted_call(kind: int, payload: bytes) -> IsolateFrame:
    if kind == UNBEGUN:
        return UnbegunFrame()
    if kind == PRINT and payload and payload[0] in STREAMS:
        return PrintFrame(STREAMS[payload[0]], payload[1:])
    if kind == BEGUN and len(payload) == THREAD.size:
        return BegunFrame(*THREAD.unpack(payload))
    if kind == LIMIT and len(payload) >= LIMIT_HEAD.size:
        level, elapsed = LIMIT_HEAD.unpack_from(payload)
        return LimitFrame(level, elapsed, payload[LIMIT_HEAD.size :].decode(errors="replace"))
    raise Garbage(f"kind {kind} during a call")

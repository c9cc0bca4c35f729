"""The requests of handlers to their context, carried out by the consumer.

    HandlerMessage(attempt, payload) ── decode ──> progress, meta    kept with the attempt; stored every 0.1 s at most, and with the
                                                                     settlement, however the attempt ends, by a kill too
                                                   extend, enqueue, compose, revoke ──> broker ──> answer; its error raises in the handler

Rules
 1. In order: what a handler sent before its end is carried out before the end is settled.
 2. While the broker is away, a request is answered with BrokerUnavailable at once; the handler decides what that means.
 3. A payload that is no request costs its sender an error, and nobody else anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, assert_never

import msgspec

from stem_iso.brokers.base import Broker
from stem_iso.errors import BrokerUnavailable, LeaseLost, StemError
from stem_iso.outcome import Progress
from stem_iso.task.context_protocol import (
    ComposeRequest,
    ContextAnswer,
    ContextRequest,
    EnqueueRequest,
    ExtendRequest,
    MetaRequest,
    ProgressRequest,
    ReportedRequest,
    RevokeRequest,
    decode_request,
    encode_answer,
)
from stem_iso.worker.attempt import Attempt, HandlerMessage
from stem_iso.worker.reporting.events import EventEmitter

AnsweredRequest = ExtendRequest | EnqueueRequest | ComposeRequest | RevokeRequest
NOTE_EVERY = 0.1  # seconds between two notes of one attempt: a handler may report as often as it likes, the store is written this often


class ContextRequests:
    """Owned by the consumer thread."""

    def __init__(self, events: EventEmitter) -> None:
        self._events = events
        self._waiting: deque[tuple[Attempt, AnsweredRequest, Callable[[bytes], None]]] = deque()
        self._dirty: set[Attempt] = set()

    def on_message(self, message: HandlerMessage) -> None:
        """Keep progress and meta with the attempt; what needs the broker waits for `answer`."""
        try:
            request = decode_request(message.payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._events.trouble(f"the handler said what is no saying: {error}", message.attempt)
            _reply(message.answer, ContextAnswer(error=("RemoteError", f"not understood: {error}")))
        else:
            self._apply(message, request)

    def _apply(self, message: HandlerMessage, request: ContextRequest) -> None:
        attempt = message.attempt
        match request:
            case ProgressRequest(percent, data):
                attempt.progress = Progress(percent, data)
                self._events.progress(attempt, percent, data)
                self._dirty.add(attempt)
            case MetaRequest(meta):
                attempt.meta = meta
                self._dirty.add(attempt)
            case ReportedRequest():
                attempt.reported = True
            case ExtendRequest() | EnqueueRequest() | ComposeRequest() | RevokeRequest():
                if message.answer is not None:
                    self._waiting.append((attempt, request, message.answer))
            case _:
                assert_never(request)

    def forget(self, attempt: Attempt) -> None:
        """The attempt has ended: its settlement carries what it wrote, and nobody waits for answers to it."""
        self._dirty.discard(attempt)

    # -- with the broker -----------------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        return bool(self._waiting)

    def answer(self, broker: Broker) -> None:
        """Carry out all requests. Raises BrokerUnavailable, after the request that met it was answered with it."""
        while self._waiting:
            attempt, request, answer = self._waiting.popleft()
            reply = ContextAnswer(error=("RemoteError", "the worker failed to carry it out; its log says why"))
            try:
                reply = ContextAnswer(_carry_out(broker, attempt, request))
            except StemError as error:
                reply = ContextAnswer(error=(type(error).__name__, str(error)))
                if isinstance(error, BrokerUnavailable):
                    raise
            finally:
                _reply(answer, reply)  # whatever happened here: the handler waits for an answer

    def refuse(self, why: StemError) -> None:
        """Answer all requests with this error: they cannot be carried out now."""
        waiting, self._waiting = self._waiting, deque()
        for _, _, answer in waiting:
            _reply(answer, ContextAnswer(error=(type(why).__name__, str(why))))

    def next_note(self) -> float:
        """When progress or meta should be stored (monotonic)."""
        return min((attempt.noted_at + NOTE_EVERY for attempt in self._dirty), default=float("inf"))

    def note(self, broker: Broker, now: float) -> None:
        for attempt in [each for each in self._dirty if each.noted_at + NOTE_EVERY <= now]:
            if not attempt.lost:
                broker.note(attempt.delivery.receipt, attempt.meta, attempt.progress)
            attempt.noted_at = now
            self._dirty.discard(attempt)


def _carry_out(broker: Broker, attempt: Attempt, request: AnsweredRequest) -> Any:
    match request:
        case ExtendRequest(by):
            if attempt.lost or not broker.extend(attempt.delivery.receipt, by):
                raise LeaseLost("the lease is another worker's")
            return None
        case EnqueueRequest(envelopes):
            return broker.publish(envelopes)
        case ComposeRequest(canvas):
            return broker.compose(canvas)
        case RevokeRequest(id, terminate):
            return broker.revoke(id, terminate)
        case _:
            assert_never(request)


def _reply(answer: Callable[[bytes], None] | None, what: ContextAnswer) -> None:
    if answer is not None:
        answer(encode_answer(what))

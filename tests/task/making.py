"""Values that the tests of this folder are about, and a port that records the requests of a handler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from hypothesis import strategies as st

from stem_iso.outcome import (
    BootFailed,
    Crashed,
    Failed,
    MemoryExceeded,
    Outcome,
    Rejected,
    RetryAsked,
    Skipped,
    Stopped,
    StopReason,
    Succeeded,
    TaskError,
    TimedOut,
    Unregistered,
)
from stem_iso.task.codec import pack
from stem_iso.task.context_protocol import CallHeader, ContextAnswer, ContextRequest, decode_request, encode_answer, encode_call
from stem_iso.task.envelope import Envelope
from stem_iso.task.policy import Policy

plain: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=4) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
seconds = st.floats(0, 1e6)
kinds = st.lists(st.sampled_from(["ValueError", "Exception", "stem_iso.errors.TimeoutException", "shop.Refused"]), min_size=1, max_size=3)
errors = st.builds(TaskError, type=st.sampled_from(["ValueError", "shop.Refused"]), message=st.text(max_size=5), retryable=st.booleans())
failures = st.builds(Failed, errors, kinds.map(tuple))
retries_asked = st.builds(
    RetryAsked,
    countdown=st.none() | seconds,
    eta=st.none(),
    max_retries=st.none() | st.integers(0, 5),
)
troubled = st.one_of(
    failures,
    retries_asked,
    st.builds(TimedOut, limit=seconds, elapsed=seconds, silent=st.booleans()),
    st.builds(MemoryExceeded, limit=st.integers(1 << 20, 1 << 40), rss=st.integers(1 << 20, 1 << 40)),
    st.builds(Crashed, exit_code=st.none() | st.integers(0, 255), signal=st.none() | st.just("SIGSEGV")),
    st.builds(BootFailed, st.text(max_size=20)),
)
stops = st.builds(Stopped, st.sampled_from(StopReason), st.booleans())
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    troubled,
    stops,
    st.builds(Succeeded, st.binary(max_size=5)),
    st.builds(Rejected, st.sampled_from(["invalid-options", "invalid-arguments", "undecodable"]), st.text(max_size=5)),
    st.builds(Skipped, st.sampled_from(["revoked", "expired"])),
    st.builds(Unregistered, st.booleans()),
)
policies = st.builds(
    Policy,
    max_retries=st.integers(0, 4),
    acks_late=st.booleans(),
    retry_for=st.none() | kinds.map(tuple),
    dont_retry_for=st.none() | kinds.map(tuple),
    result_ttl=st.floats(1, 1e6),
)
metas = st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2)
envelopes = st.builds(
    Envelope,
    id=st.just("t"),
    name=st.just("thumbs.make"),
    args=st.just(msgspec.Raw(b"\x80")),
    run=st.integers(0, 3),
    attempt=st.integers(0, 6),
    meta=metas,
    unregistered_since=st.none() | seconds,
)


class RecordingPort:
    """`Port` for tests: records what the handler sends, and answers with `answers`, then with None."""

    isolated = False

    def __init__(self, *answers: ContextAnswer, soft_deadline: float | None = None, hard_deadline: float | None = None) -> None:
        self.soft_deadline, self.hard_deadline = soft_deadline, hard_deadline
        self.requests: list[ContextRequest] = []
        self.beats = 0
        self.armed_now = False
        self._answers = list(answers)

    def request(self, payload: bytes) -> bytes:
        self.requests.append(decode_request(payload))
        return encode_answer(self._answers.pop(0) if self._answers else ContextAnswer())

    def send(self, payload: bytes) -> None:
        self.requests.append(decode_request(payload))

    def beat(self) -> None:
        self.beats += 1

    @contextmanager
    def armed(self) -> Iterator[None]:
        self.armed_now = True
        try:
            yield
        finally:
            self.armed_now = False


def payload_of(args: dict[str, Any] | None = None, **header: Any) -> bytes:
    return encode_call(CallHeader(**{"id": "t", "name": "thumbs.make", "queue": "default", **header}), msgspec.Raw(pack(args or {})))

"""The gates of a delivery, in their order; what they refuse is an outcome, and never an exception."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from stem_iso.outcome import Rejected, Skipped, Unregistered
from stem_iso.task.envelope import Envelope
from stem_iso.worker.admission import opened, refusal_of
from tests.task.making import plain

laws = settings(max_examples=200, deadline=None)


@laws
@given(st.binary(max_size=60) | plain.map(msgspec.msgpack.encode))
def test_bytes_that_are_no_envelope_are_a_value_and_never_an_exception(body: bytes) -> None:
    found = opened(body)
    assert isinstance(found, Envelope) or (isinstance(found, Rejected) and found.reason == "undecodable")


ENVELOPE = Envelope(id="t", name="n", args=msgspec.Raw(b"\x80"), expires=50.0)


def test_the_gates_stand_in_their_order() -> None:
    assert refusal_of(ENVELOPE, registered=True, revoked=False, now=49.9, grace=60.0) is None
    assert refusal_of(ENVELOPE, registered=True, revoked=False, now=50.0, grace=60.0) == Skipped("expired")
    assert refusal_of(ENVELOPE, registered=True, revoked=True, now=50.0, grace=60.0) == Skipped("revoked")
    assert refusal_of(ENVELOPE, registered=False, revoked=True, now=50.0, grace=60.0) == Unregistered(grace_over=False)


def test_the_grace_of_an_unknown_name_runs_from_its_first_meeting() -> None:
    met = msgspec.structs.replace(ENVELOPE, unregistered_since=100.0)
    assert refusal_of(met, registered=False, revoked=False, now=159.9, grace=60.0) == Unregistered(grace_over=False)
    assert refusal_of(met, registered=False, revoked=False, now=160.0, grace=60.0) == Unregistered(grace_over=True)
    assert refusal_of(ENVELOPE, registered=False, revoked=False, now=160.0, grace=0) == Unregistered(grace_over=True)

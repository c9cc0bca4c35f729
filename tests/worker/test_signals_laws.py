"""Whatever an attempt ends with, and whatever the broker makes of it: one end, and one postrun for one prerun."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from stem_iso.brokers.base import Delivery, Receipt, Verdict
from stem_iso.outcome import Outcome, Stopped, StopReason
from stem_iso.signals import Signals
from stem_iso.task.envelope import Envelope, encode
from stem_iso.task.policy import Policy
from stem_iso.task.settlement import GiveBack, Retry, settle
from stem_iso.worker.attempt import Attempt
from stem_iso.worker.reporting.bus import Bus
from stem_iso.worker.reporting.signals import SignalEmitter
from tests.task.making import envelopes, outcomes, policies

END_OF = {"succeeded": "task_succeeded", "retried": "task_retry", "failed": "task_failed", "cancelled": "task_revoked", "queued": None}
PORT: Any = None  # nobody reports to it here


@example(Envelope(id="t", name="n", args=msgspec.Raw(b"\x80")), Stopped(StopReason.SHUTDOWN, True), Policy(), Verdict.DONE, True)
@given(envelopes, outcomes, policies, st.sampled_from(Verdict), st.booleans())
def test_an_attempt_has_one_end_and_a_postrun_exactly_if_it_had_begun(
    envelope: Envelope, outcome: Outcome, policy: Policy, verdict: Verdict, begun: bool
) -> None:
    plan = settle(envelope, outcome, policy, now=1000.0, delay=1.0)
    if plan is None:
        return  # the lease is lost: nothing is settled, and nothing emitted
    signals, bus, received = Signals(), Bus("w"), []
    for channel in signals:
        channel.connect(received.append)
    attempt = Attempt(PORT, Delivery(Receipt(envelope.id, "boot", 1), encode(envelope), envelope.queue, 0, 30.0), envelope, policy)
    attempt.begun_at = float(begun)
    SignalEmitter("w", bus, signals).settled(attempt, plan, verdict, 0.5)
    bus.close()

    emitted = [value.signal for value in received]
    if verdict is Verdict.LOST:
        assert emitted == []
        return
    again = verdict is Verdict.DONE and isinstance(plan, GiveBack)
    assert emitted[len(emitted) - begun :] == ["task_postrun"] * begun
    ends = emitted[: len(emitted) - begun]
    assert len(ends) == (0 if again else 1) and "task_postrun" not in ends
    if begun:
        assert END_OF[received[-1].state] == (ends[0] if ends else None)
    if verdict is Verdict.CANCELLED:
        assert (ends, received[0].reason) == (["task_revoked"], "revoked")
    elif isinstance(plan, Retry):
        assert received[0].next_attempt == received[0].attempt + 1 == envelope.attempt + 1
    assert {(value.task_id, value.run, value.attempt) for value in received} <= {(envelope.id, envelope.run, envelope.attempt)}

"""The admission of one delivery (D5): decided here, carried out by `attempts`. Pure, except that it reads the registry.

Delivery ── decode ─ resolve ─ revoked? ─ expired? ─ options ──> Admitted ──> (limits) ──> (mark) ──> Job
              └─────────┴─────────┴──────────┴──────────┴─────> Refused(outcome): settled without having run
"""

from __future__ import annotations

import msgspec

from stem_iso.brokers.base import Delivery
from stem_iso.isolate.interfaces import HostedJob, Job, Limits
from stem_iso.outcome import Outcome, Rejected, Unregistered
from stem_iso.task.context_protocol import CallHeader, encode_call
from stem_iso.task.envelope import Envelope
from stem_iso.task.gates import gate, opened
from stem_iso.task.options import Form
from stem_iso.task.policy import DEFAULT_POLICY, Policy
from stem_iso.worker.inline.call import InlineJob
from stem_iso.worker.resolved_handlers import HandlerCache, ResolvedHandler


class Admitted(msgspec.Struct, frozen=True):
    envelope: Envelope
    policy: Policy
    job: Job | InlineJob


class Refused(msgspec.Struct, frozen=True):
    """`envelope` is a stand-in where the bytes could not be decoded: it names the delivery and its queue, for the event."""

    envelope: Envelope
    policy: Policy
    outcome: Outcome


def admit(delivery: Delivery, handlers: HandlerCache, now: float, grace: float) -> Admitted | Refused:
    """`now` is wall-clock seconds, `grace` how long a task without a handler is given back."""
    envelope = opened(delivery.body)
    if isinstance(envelope, Envelope) and envelope.id != delivery.receipt.id:  # its outcome would be another task's
        envelope = Rejected("undecodable", f"its envelope has the id {envelope.id!r}, it was delivered as {delivery.receipt.id!r}")
    if isinstance(envelope, Rejected):
        return Refused(Envelope(id=delivery.receipt.id, name="", args=msgspec.Raw(b"\x80"), queue=delivery.queue), DEFAULT_POLICY, envelope)
    if envelope.redeliveries != delivery.redeliveries:
        envelope = msgspec.structs.replace(envelope, redeliveries=delivery.redeliveries)
    known = handlers.find(envelope)
    refusal = gate(envelope, registered=known is not None, revoked=delivery.revoked, now=now, grace=grace)
    if refusal is not None or known is None:
        policy = DEFAULT_POLICY if known is None else known.policy_for(envelope)[0]
        return Refused(envelope, policy if isinstance(policy, Policy) else DEFAULT_POLICY, refusal or Unregistered(grace_over=True))
    policy, limits = known.policy_for(envelope)
    if isinstance(policy, Rejected):
        return Refused(envelope, DEFAULT_POLICY, policy)
    return Admitted(envelope, policy, _job(delivery, envelope, policy, limits, known))


def _job(delivery: Delivery, envelope: Envelope, policy: Policy, limits: Limits, known: ResolvedHandler) -> Job | InlineJob:
    header = CallHeader(
        id=envelope.id,
        name=envelope.name,
        queue=envelope.queue,
        run=envelope.run,
        attempt=envelope.attempt,
        max_retries=policy.max_retries,
        headers=envelope.headers,
        meta=envelope.meta,
        parent_id=envelope.parent_id,
        root_id=envelope.root_id,
        previous=envelope.previous,
        after=envelope.after,
        soft_limit=policy.soft,
        hard_limit=policy.hard,
    )
    payload = encode_call(header, envelope.args)
    title = f"{envelope.name} {envelope.id}"
    if known.entry is not None and known.form is not Form.ISOLATED:
        return HostedJob(known.entry, payload, title, limits, envelope.priority, coroutine=known.form is Form.ASYNC)
    if known.entry is not None:
        return Job(known.entry, payload, title, limits, envelope.priority)
    assert known.entrypoint is not None  # one of the two is set
    return InlineJob(known.entrypoint, known.form is Form.ASYNC, payload, limits, delivery.visibility, title)

"""Admission of one delivery: decided here, carried out by `attempts`. Pure, except that it reads the registry.

    bytes ── decode ── resolve ── revoked? ── expired? ── options ──> Admitted ──> (limits) ──> (mark) ──> Job
               │          │          │           │          │
            Rejected Unregistered Skipped     Skipped    Rejected ──> Refused(outcome): settled without having run

Every refusal is an Outcome, on the one road. A handler is resolved once for all deliveries, so that a delivery costs a dictionary look-up
and no reflection:

    envelope.name ── registry ──> handler ── once ──> ResolvedHandler(form, policy, limits, entry | entrypoint)
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import UNSET

from stem_iso.brokers.base import Delivery
from stem_iso.errors import UnknownTask
from stem_iso.isolate.interfaces import EntrypointRef, HostedJob, Job, Limits
from stem_iso.outcome import Outcome, Rejected, Skipped, Unregistered
from stem_iso.task.context_protocol import CallHeader, encode_call
from stem_iso.task.envelope import Envelope, Undecodable, decode
from stem_iso.task.handler import Entrypoint, TaskHandler, form_of
from stem_iso.task.options import CARRIED, Form, TaskOptions
from stem_iso.task.policy import DEFAULT_POLICY, Policy, resolve_policy
from stem_iso.worker.inline.call import InlineJob

if TYPE_CHECKING:
    from stem_iso.app import Stem

_overrides = attrgetter(*CARRIED)
_NONE = (UNSET,) * len(CARRIED)


class Admitted(msgspec.Struct, frozen=True):
    envelope: Envelope
    policy: Policy
    job: Job | InlineJob


class Refused(msgspec.Struct, frozen=True):
    """`envelope` is a stand-in where the bytes could not be decoded: it names the delivery and its queue, for the event."""

    envelope: Envelope
    policy: Policy
    outcome: Outcome


def admit(delivery: Delivery, handlers: HandlerCache, now: float, grace: float, worker_id: str = "") -> Admitted | Refused:
    """`now` is wall-clock seconds, `grace` how long a task without a handler is given back."""
    envelope = opened(delivery.body)
    if isinstance(envelope, Envelope) and envelope.id != delivery.receipt.id:  # its outcome would be another task's
        envelope = Rejected("undecodable", f"its envelope has the id {envelope.id!r}, it was delivered as {delivery.receipt.id!r}")
    if isinstance(envelope, Rejected):
        return Refused(Envelope(id=delivery.receipt.id, name="", args=msgspec.Raw(b"\x80"), queue=delivery.queue), DEFAULT_POLICY, envelope)
    if envelope.redeliveries != delivery.redeliveries:
        envelope = msgspec.structs.replace(envelope, redeliveries=delivery.redeliveries)
    known = handlers.find(envelope)
    refusal = refusal_of(envelope, registered=known is not None, revoked=delivery.revoked, now=now, grace=grace)
    if refusal is not None or known is None:
        policy = DEFAULT_POLICY if known is None else known.policy_for(envelope)[0]
        return Refused(envelope, policy if isinstance(policy, Policy) else DEFAULT_POLICY, refusal or Unregistered(grace_over=True))
    policy, limits = known.policy_for(envelope)
    if isinstance(policy, Rejected):
        return Refused(envelope, DEFAULT_POLICY, policy)
    payload = payload_of(envelope, policy, worker_id, handlers.settings() if known.entry is not None else None)
    return Admitted(envelope, policy, _job(delivery, envelope, payload, limits, known))


def _job(delivery: Delivery, envelope: Envelope, payload: bytes, limits: Limits, known: ResolvedHandler) -> Job | InlineJob:
    title = f"{envelope.name} {envelope.id}"
    if known.entry is not None and known.form is not Form.ISOLATED:
        return HostedJob(known.entry, payload, title, limits, envelope.priority, coroutine=known.form is Form.ASYNC)
    if known.entry is not None:
        return Job(known.entry, payload, title, limits, envelope.priority)
    assert known.entrypoint is not None  # one of the two is set
    return InlineJob(known.entrypoint, known.form is Form.ASYNC, payload, limits, delivery.visibility, title)


def payload_of(envelope: Envelope, policy: Policy, worker_id: str = "", settings: dict[str, Any] | None = None) -> bytes:
    """The call of this attempt, as `task.context_protocol` has it."""
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
        retry_for=policy.retry_for,
        dont_retry_for=policy.dont_retry_for,
        worker_id=worker_id,
        redact=policy.redact,
        settings=settings or {},
    )
    return encode_call(header, envelope.args)


# -- refusals ------------------------------------------------------------------------------------------------------------------------------


def opened(body: bytes) -> Envelope | Rejected:
    """The envelope of these bytes, or why they are none."""
    try:
        return decode(body)
    except Undecodable as error:
        return Rejected("undecodable", str(error))


def refusal_of(envelope: Envelope, *, registered: bool, revoked: bool, now: float, grace: float) -> Unregistered | Skipped | None:
    """Why this envelope does not run, None where it does. `now` is wall-clock seconds, `grace` seconds."""
    if not registered:
        since = now if envelope.unregistered_since is None else envelope.unregistered_since
        return Unregistered(grace_over=now - since >= grace)
    if revoked:
        return Skipped("revoked")
    if envelope.expires is not None and now >= envelope.expires:
        return Skipped("expired")
    return None


# -- handlers, each resolved once --------------------------------------------------------------------------------------------------------


class EntryMaker(Protocol):
    def entry(self, name: str) -> EntrypointRef: ...


@dataclass(frozen=True, slots=True, eq=False)
class ResolvedHandler:
    """`policy` and `limits` hold where the envelope says nothing. One of `entry` (it runs in another process) and `entrypoint` is set."""

    handler: TaskHandler[Any]
    options: TaskOptions
    form: Form
    policy: Policy | Rejected
    limits: Limits
    entry: EntrypointRef | None
    entrypoint: Entrypoint | None

    def policy_for(self, envelope: Envelope) -> tuple[Policy | Rejected, Limits]:
        if _overrides(envelope) == _NONE:
            return self.policy, self.limits
        policy = resolve_policy(self.options, envelope, self.form)
        return policy, limits_of(policy)


def limits_of(policy: Policy | Rejected) -> Limits:
    if isinstance(policy, Rejected):
        return Limits()
    return Limits(policy.soft, policy.hard, policy.heartbeat, policy.raise_soft, policy.memory, policy.cpus)


class HandlerCache:
    """Owned by the consumer thread. A handler that is replaced (`override=True`) while the worker runs is resolved anew."""

    def __init__(self, app: Stem, entries: EntryMaker, *, hosted: bool = False) -> None:
        """`hosted`: inline handlers run in the shared host, not in this process."""
        self._app, self._entries, self._hosted = app, entries, hosted
        self._known: dict[str, ResolvedHandler] = {}

    def names(self) -> list[str]:
        return [handler.name for handler in self._app.registry]

    def settings(self) -> dict[str, Any]:
        """What a call in another process is to adopt, see `client.isolate_settings`."""
        settings = self._app.isolate_settings
        return {} if settings is None else settings.changed()

    def find(self, envelope: Envelope) -> ResolvedHandler | None:
        name = envelope.name
        try:
            handler = self._app.registry.resolve(name)
        except UnknownTask:
            return None
        known = self._known.get(name)
        if known is None or known.handler is not handler:
            known = self._known[name] = self._resolve(handler, envelope)
        return known

    def _resolve(self, handler: TaskHandler[Any], envelope: Envelope) -> ResolvedHandler:
        form = form_of(handler)
        bare = Envelope(id=envelope.id, name=envelope.name, args=envelope.args)
        options = self._app.options_of(handler.name)
        policy = resolve_policy(options, bare, form)
        elsewhere = form is Form.ISOLATED or self._hosted
        return ResolvedHandler(
            handler,
            options,
            form,
            policy,
            limits_of(policy),
            self._entries.entry(handler.name) if elsewhere else None,
            None if elsewhere else self._app.entrypoint(handler.name),
        )

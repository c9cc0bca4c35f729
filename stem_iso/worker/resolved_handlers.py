"""The resolved handlers of this worker: each is resolved once, so that a delivery costs a dictionary look-up and no reflection.

envelope.name ── registry ──> handler ── once ──> ResolvedHandler(form, policy, limits, entry | entrypoint)
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import UNSET

from stem_iso.errors import UnknownTask
from stem_iso.isolate.interfaces import EntrypointRef, Limits
from stem_iso.outcome import Rejected
from stem_iso.task.entrypoint import Entrypoint
from stem_iso.task.envelope import Envelope
from stem_iso.task.handler import TaskHandler, form_of
from stem_iso.task.options import CARRIED, Form
from stem_iso.task.policy import Policy, resolve_policy

if TYPE_CHECKING:
    from stem_iso.app import Stem

_overrides = attrgetter(*CARRIED)
_NONE = (UNSET,) * len(CARRIED)


class EntryMaker(Protocol):
    def entry(self, name: str) -> EntrypointRef: ...


@dataclass(frozen=True, slots=True, eq=False)
class ResolvedHandler:
    """`policy` and `limits` hold where the envelope says nothing. One of `entry` (it runs in another process) and `entrypoint` is set."""

    handler: TaskHandler[Any]
    form: Form
    policy: Policy | Rejected
    limits: Limits
    entry: EntrypointRef | None
    entrypoint: Entrypoint | None

    def policy_for(self, envelope: Envelope) -> tuple[Policy | Rejected, Limits]:
        if _overrides(envelope) == _NONE:
            return self.policy, self.limits
        policy = resolve_policy(self.handler.options, envelope, self.form)
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

    def find(self, envelope: Envelope) -> ResolvedHandler | None:
        name = envelope.name
        try:
            handler = self._app.registry.resolve(name)
        except UnknownTask:
            return None
        known = self._known.get(name)
        if known is None or known.handler is not handler:
            known = self._known[name] = self._look(handler, envelope)
        return known

    def _look(self, handler: TaskHandler[Any], envelope: Envelope) -> ResolvedHandler:
        form = form_of(handler)
        bare = Envelope(id=envelope.id, name=envelope.name, args=envelope.args)
        policy = resolve_policy(handler.options, bare, form)
        elsewhere = form is Form.ISOLATED or self._hosted
        return ResolvedHandler(
            handler,
            form,
            policy,
            limits_of(policy),
            self._entries.entry(handler.name) if elsewhere else None,
            None if elsewhere else self._app.entrypoint(handler.name),
        )

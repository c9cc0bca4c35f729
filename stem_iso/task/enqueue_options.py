"""Options of one enqueue, and the envelope that they make.

    task + EnqueueOptions (given at enqueue) + TaskOptions (the handler's, if its code is here) ──> EnvelopeTemplate
    EnvelopeTemplate + args + id + now ── fill ──> Envelope

Rules
 1. What was given at enqueue overrides the handler's, a default value included; what was not given stays UNSET, and the worker's handler
    decides (its code may be newer). What the broker itself must know (queue, priority, visibility, lock, expiry) is written out.
 2. The unique key is queue, task, and `unique_key` or a hash of the arguments in a canonical encoding; never headers or meta.
 3. The clock and the id are arguments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from stem_iso.errors import InvalidOptions
from stem_iso.task import rate_limit
from stem_iso.task.arguments import pack_arguments
from stem_iso.task.envelope import Envelope
from stem_iso.task.names import joined
from stem_iso.task.options import CARRIED, ENQUEUE_CHECKS, Form, TaskOptions, checked, cores_conflict, form_conflict, limit_conflict


@dataclass(frozen=True, slots=True)
class EnqueueOptions:
    """Options given at enqueue: only the names that were given, checked and normalised."""

    given: Mapping[str, Any] = field(default_factory=dict)

    def merge(self, more: Mapping[str, Any]) -> EnqueueOptions:
        """Raises InvalidOptions. The later of two wins."""
        given = {**self.given, **checked(more, ENQUEUE_CHECKS)}
        if "delay" in given and "eta" in given:
            raise InvalidOptions("give delay or eta, not both")
        conflict = limit_conflict(given.get("soft_time_limit"), given.get("hard_time_limit"))
        if conflict:
            raise InvalidOptions(conflict)
        return EnqueueOptions(given)


NO_OPTIONS = EnqueueOptions()


@dataclass(frozen=True, slots=True)
class Declared:
    """What this process knows of a task: its name, and where its code is here, what the handler declared."""

    name: str
    options: TaskOptions | None = None
    form: Form = Form.ISOLATED


class EnvelopeTemplate:
    """What the envelopes of a task under these options have in common: checked, and put together, once. Raises InvalidOptions."""

    def __init__(self, declared: Declared, using: EnqueueOptions) -> None:
        self._given = given = using.given
        options = declared.options or TaskOptions()
        _refuse_conflicts(declared, options, given)
        # A key of one's own says "unique" by itself, unless it was switched off in the same breath.
        self._unique = bool(given.get("unique", options.unique or "unique_key" in given))
        unique_for = given.get("unique_for", options.unique_for)
        if given.get("unique_for") is not None and not self._unique:
            raise InvalidOptions(f"unique_for ({unique_for:g} s) means nothing without unique=True")
        fields = {name: given[name] for name in CARRIED if name in given}
        if options.visibility_timeout is not None:
            fields.setdefault("visibility_timeout", options.visibility_timeout)
        self._delay = 0.0 if "eta" in given else given.get("delay") or 0.0
        self._expires = given.get("expires", options.expires)
        self._common = Envelope(
            id="",
            name=declared.name,
            args=msgspec.Raw(),
            queue=given.get("queue", options.queue),
            priority=given.get("priority", options.priority),
            headers=given.get("headers", {}),
            meta=given.get("meta", {}),
            not_before=given.get("eta"),
            unique_for=unique_for if self._unique else None,
            **fields,
        )

    def fill(self, args: Mapping[str, Any], *, id: str, now: float, lineage: tuple[str, str] | None = None) -> Envelope:
        """Raises TypeError for arguments that cannot be sent."""
        common = self._common
        parent_id, root_id = lineage or (None, None)
        return msgspec.structs.replace(
            common,
            id=id,
            args=msgspec.Raw(pack_arguments(common.name, args)),
            headers=common.headers.copy(),  # frozen is the envelope, not what is in it
            meta=common.meta.copy(),
            extra={},
            enqueued_at=now,
            not_before=now + self._delay if self._delay else common.not_before,
            expires=None if self._expires is None else _expires(self._expires, now),
            lock=self._lock(args) if self._unique else None,
            parent_id=parent_id,
            root_id=root_id,
        )

    def _lock(self, args: Mapping[str, Any]) -> str:
        key = self._given.get("unique_key")
        if key is None:
            key = hashlib.sha256(pack_arguments(self._common.name, args, canonical=True)).hexdigest()[:32]
        return joined(self._common.queue, self._common.name, key)


def envelope_of(
    declared: Declared, args: Mapping[str, Any], using: EnqueueOptions, *, id: str, now: float, lineage: tuple[str, str] | None = None
) -> Envelope:
    """One by itself. Raises InvalidOptions, and TypeError for arguments that cannot be sent."""
    return EnvelopeTemplate(declared, using).fill(args, id=id, now=now, lineage=lineage)


def _refuse_conflicts(declared: Declared, options: TaskOptions, given: Mapping[str, Any]) -> None:
    def option(name: str) -> Any:
        return given[name] if name in given else getattr(options, name)

    conflict = limit_conflict(option("soft_time_limit"), option("hard_time_limit")) or form_conflict(declared.form, option)
    if conflict is None and declared.options is not None and "cpus" in given:
        conflict = cores_conflict(option("cpus"), option("cpu_bound"))
    if conflict is None and declared.options is not None:
        conflict = rate_limit.key_conflict(given.get("limit_key"), option("rate_limit"), option("max_concurrency"))
    if conflict:
        raise InvalidOptions(f"{declared.name}: {conflict}")


def _expires(value: float | datetime, now: float) -> float:
    return value.timestamp() if isinstance(value, datetime) else now + float(value)


def as_later_step(envelope: Envelope, using: EnqueueOptions, now: float) -> Envelope:
    """A step of a canvas that others come before: its delay and its expiry count from its start. `now`: as given to `envelope_of`."""
    fixed = isinstance(using.given.get("expires"), datetime)
    changes: dict[str, Any] = {}
    if using.given.get("delay"):
        changes |= {"starts_in": using.given["delay"], "not_before": None}
    if envelope.expires is not None and not fixed:
        changes |= {"expires_in": envelope.expires - now, "expires": None}
    return msgspec.structs.replace(envelope, **changes) if changes else envelope

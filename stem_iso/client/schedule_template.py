"""Template of a schedule: the envelopes of its call or canvas, made once and sent each time the schedule fires.

    task.s(...) | chain | group | chord ── record_of ──> ScheduleRecord(revision: a hash of all that it says)

Their ids are places ("0", "1", …), for which each firing puts ids of its own, and their times count from 0.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec

from stem_iso.client import enqueue
from stem_iso.client.canvas import Part, Signature, signatures
from stem_iso.client.canvas_builder import laid
from stem_iso.errors import InvalidOptions, PayloadTooLarge
from stem_iso.task import schedule as planning
from stem_iso.task.arguments import pack_arguments
from stem_iso.task.envelope import Envelope, encode
from stem_iso.task.schedule import Schedule

if TYPE_CHECKING:
    from stem_iso.brokers.base import ScheduleRecord
    from stem_iso.client.application import Application

# Each means one moment or one task, and a schedule has many.
REFUSED = {"eta": "delay", "task_id": "nothing: ids follow from schedule and due time"}


def refuse(name: str, call: Part[Any]) -> None:
    """Raises InvalidOptions for what cannot be enqueued again and again, and TypeError for arguments that cannot be sent."""
    if not isinstance(call, Part):
        raise InvalidOptions(f"schedule {name!r}: {call!r} is no call; give task.s(...), or a chain, group or chord")
    for each in signatures(call):
        given = each.task.options.given
        for option, instead in REFUSED.items():
            if option in given:
                what = f"{option} ({given[option]!r}) means one task, a schedule makes many"
                raise InvalidOptions(f"schedule {name!r}: {what}; use {instead}")
        if isinstance(given.get("expires"), datetime):
            what = f"expires ({given['expires']}) is one moment"
            raise InvalidOptions(f"schedule {name!r}: {what}; give a duration, counted from each firing")
        pack_arguments(each.task.name, each.args)


def record_of(app: Application, schedule: Schedule, call: Part[Any], owner: str) -> ScheduleRecord:
    """As the broker keeps it. Raises InvalidOptions, Misfit, TypeError and PayloadTooLarge."""
    from stem_iso.brokers.base import ScheduleRecord  # an importer that declares nothing pays for no broker

    body = planning.encode(_filled(app, schedule, call, canonical=False))
    if len(body) > app.broker_options.max_payload_bytes:
        raise PayloadTooLarge(
            f"schedule {schedule.name!r} is {len(body):,} bytes, max_payload_bytes is {app.broker_options.max_payload_bytes:,}: "
            "pass a reference (a path, a key) instead of the data, or raise the limit"
        )
    # Sets among the arguments have no order of their own, and must not look changed after each restart.
    same = planning.encode(_filled(app, schedule, call, canonical=True))
    return ScheduleRecord(
        name=schedule.name,
        revision=hashlib.sha256(same).hexdigest()[:32],
        body=body,
        due=planning.next_due(schedule, app.clock()),
        owner=owner,
    )


def _filled(app: Application, schedule: Schedule, part: Part[Any], canonical: bool) -> Schedule:
    """With what it fires: ids are places in it, and times count from 0."""
    places = map(str, count())

    def make(signature: Signature[Any]) -> Envelope:
        envelope = msgspec.structs.replace(enqueue.template(signature), id=next(places))
        if not canonical:
            return envelope
        return msgspec.structs.replace(envelope, args=msgspec.Raw(pack_arguments(envelope.name, signature.args, canonical=True)))

    if isinstance(part, Signature) and not part.on_error:
        return msgspec.structs.replace(schedule, call=encode(make(part)))
    canvas = laid(app, part, make, 0.0, lambda: next(places))
    return msgspec.structs.replace(schedule, canvas=msgspec.msgpack.encode(canvas))

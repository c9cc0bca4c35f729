"""Gates of a delivery: the checks before it may run.

bytes ── decode ──> resolve ──> revoked? ──> expired? ──> run
           │           │            │            │
        Rejected  Unregistered   Skipped      Skipped      every one of them an Outcome, on the one road
"""

from __future__ import annotations

from stem_iso.outcome import Rejected, Skipped, Unregistered
from stem_iso.task.envelope import Envelope, Undecodable, decode

UNREGISTERED_GRACE = 60.0


def opened(body: bytes) -> Envelope | Rejected:
    """The envelope of these bytes, or why they are none."""
    try:
        return decode(body)
    except Undecodable as error:
        return Rejected("undecodable", str(error))


def gate(
    envelope: Envelope, *, registered: bool, revoked: bool, now: float, grace: float = UNREGISTERED_GRACE
) -> Unregistered | Skipped | None:
    """Why this envelope does not run, None where it does. `now` is wall-clock seconds, `grace` seconds."""
    if not registered:
        since = now if envelope.unregistered_since is None else envelope.unregistered_since
        return Unregistered(grace_over=now - since >= grace)
    if revoked:
        return Skipped("revoked")
    if envelope.expires is not None and now >= envelope.expires:
        return Skipped("expired")
    return None

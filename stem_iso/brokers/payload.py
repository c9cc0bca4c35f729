"""Envelopes as bytes, refused where they are larger than the broker may carry."""

from __future__ import annotations

from collections.abc import Sequence

from stem_iso.errors import PayloadTooLarge
from stem_iso.task.envelope import Envelope, encode


def encoded(envelopes: Sequence[Envelope], limit: int) -> list[tuple[Envelope, bytes]]:
    """Raises PayloadTooLarge for the first that is too large, before anything is stored."""
    pairs = [(envelope, encode(envelope)) for envelope in envelopes]
    for envelope, body in pairs:
        if len(body) > limit:
            raise PayloadTooLarge(
                f"task {envelope.name} ({envelope.id}) is {len(body):,} bytes, max_payload_bytes is {limit:,}: "
                "pass a reference (a path, a key) instead of the data, or raise the limit"
            )
    return pairs

"""Replies of hosted calls, from their outcomes. Pure; `engine.endings` reads them on the other side.

An isolate's runner packs its reply by itself. Where many calls share a process, the limits and stops of a call end it there too.
"""

from __future__ import annotations

import msgspec

from stem_iso.isolate.interfaces import FAILED, REJECTED, RETRY, STOPPED, SUCCEEDED, TIMED_OUT
from stem_iso.outcome import Failed, Outcome, Rejected, RetryAsked, Stopped, Succeeded, TimedOut

_encode = msgspec.msgpack.Encoder().encode


def pack_reply(outcome: Outcome) -> tuple[int, bytes]:
    match outcome:
        case Succeeded(result):
            return SUCCEEDED, result
        case Failed(error, kinds):
            return FAILED, _encode((error, kinds))
        case RetryAsked(countdown, eta, max_retries):
            return RETRY, _encode((countdown, eta, max_retries))
        case Rejected(reason, message):
            return REJECTED, _encode((reason, message))
        case TimedOut():
            return TIMED_OUT, _encode(outcome)
        case Stopped(reason, started):
            return STOPPED, _encode((reason.value, started))
        case _:
            raise TypeError(f"{type(outcome).__name__} is no ending that a host reports")

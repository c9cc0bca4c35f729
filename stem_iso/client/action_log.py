"""Log of what operators did: who, when, what, to which task, queue or worker. The broker keeps the last 1,000.

    app.pause, resume, control, bulk · handle.run_now, edit ──┐
    the command line, a dashboard ── app.log_action ──────────┴──> log ──> broker.log_action ──> app.actions()

An application that revokes or retries a task in its own code is no operator: `handle.revoke()` and `handle.retry()` leave no line. Where
somebody does it by hand, the command line or the dashboard writes one. What a single task refused changed nothing, and is not listed.
"""

from __future__ import annotations

import getpass
import logging
import os
import socket
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from stem_iso.client.result import datetime_of
from stem_iso.errors import BrokerUnavailable
from stem_iso.validation import optional_text, whole

if TYPE_CHECKING:
    from stem_iso.client.application import Application

LONGEST_FIELD = 400  # characters: a line of a list, whatever somebody put into a filter

logger = logging.getLogger(__name__)


class ActionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody did. `by` is "user@host", or what was given as `by`; `target` an id, a queue, a worker, or a filter in words; `result`
    in words."""

    at: datetime
    by: str
    action: str
    target: str
    result: str


def operator() -> str:
    """Who runs this program, as "user@host"."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container whose user has no name; ImportError: Windows, where the environment names none
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"{user}@{socket.gethostname()}"


def log(app: Application, action: str, target: str, result: str, by: str | None) -> None:
    """It is done by now: a broker that is away at this moment loses the line, and the caller still gets the answer."""
    from stem_iso.brokers.operations import Action

    line = Action(
        at=app.clock(), by=_cut(optional_text("by", by) or operator()), action=_cut(action), target=_cut(target), result=_cut(result)
    )
    try:
        with app.broker_pool.borrow() as broker:
            broker.log_action(line)
    except BrokerUnavailable as error:
        logger.warning("%s of %s is done, but not in the list of actions: %s", action, target or "all", error)


def actions(app: Application, limit: int) -> list[ActionInfo]:
    whole("limit", limit, 1, 1000, " from 1 to 1000")
    with app.broker_pool.borrow() as broker:
        found = broker.actions(limit)
    return [
        ActionInfo(at=at, by=each.by, action=each.action, target=each.target, result=each.result)
        for each in found
        if (at := datetime_of(each.at)) is not None
    ]


def _cut(written: str) -> str:
    return written if len(written) <= LONGEST_FIELD else written[: LONGEST_FIELD - 1] + "…"

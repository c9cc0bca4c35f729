"""The commands of operators to this worker: read from the broker, carried out once, answered once.

    broker.commands ──> order_of ──> Order ──> Controls ──> CommandReply ──> broker.reply
                           └── RefusedOrder: done False, and the way out

    pauses               look at what is paused                   concurrency N        so many seats from now on; what runs ends
    drain, drain off     finish what runs, take nothing, stay     stop                 as TERM
    log-level NAME       of the worker's log                      kill PID, stack PID  of one of its isolates

Rules
 1. A command is carried out when it is first read. Until its reply is stored the broker names it again; then only the reply is sent again.
 2. Nothing waits here: what the engine has to answer (`kill`, `stack`) comes back through the inbox.
 3. `drain` takes no value, or whether it drains (True, False, "on", "off"): `drain off` and `resume` end it.
 4. `order_of` decides, and is pure; values come from anybody.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from stem_iso.brokers.base import Broker
from stem_iso.brokers.operations import Command, CommandReply
from stem_iso.config import LOG_LEVELS
from stem_iso.validation import did_you_mean

LOOK_EVERY, LOOK_SOON = 1.0, 0.1  # seconds; the second is the least time between two looks: each new task may make the watch fire
MOST_SEATS = 512  # seats and spares together: half of what a keeper has room for, since the dying need theirs
ACTIONS = ("pauses", "concurrency", "drain", "resume", "stop", "log-level", "kill", "stack")


class ReadPauses(msgspec.Struct, frozen=True):
    pass


class Resize(msgspec.Struct, frozen=True):
    seats: int


class Drain(msgspec.Struct, frozen=True):
    draining: bool


class Stop(msgspec.Struct, frozen=True):
    pass


class SetLogLevel(msgspec.Struct, frozen=True):
    level: str


class Kill(msgspec.Struct, frozen=True):
    pid: int


class ShowStack(msgspec.Struct, frozen=True):
    pid: int


class RefusedOrder(msgspec.Struct, frozen=True):
    why: str


Order = ReadPauses | Resize | Drain | Stop | SetLogLevel | Kill | ShowStack | RefusedOrder


def order_of(action: str, value: Any, most_seats: int = MOST_SEATS) -> Order:
    """What this command asks for, or why it is none."""
    match action:
        case "pauses":
            return ReadPauses()
        case "stop":
            return Stop()
        case "drain" | "resume":
            return _drain(action, value)
        case "concurrency":
            seats = _number(value)
            if seats is None or not 1 <= seats <= most_seats:
                return RefusedOrder(_wrong(action, value, f"a number of seats, 1 to {most_seats}"))
            return Resize(seats)
        case "log-level":
            level = value.lower() if isinstance(value, str) else ""
            return SetLogLevel(level) if level in LOG_LEVELS else RefusedOrder(_wrong(action, value, f"one of {', '.join(LOG_LEVELS)}"))
        case "kill" | "stack":
            pid = _number(value)
            if pid is None or pid < 1:
                return RefusedOrder(_wrong(action, value, "the pid of one of the worker's isolates"))
            return Kill(pid) if action == "kill" else ShowStack(pid)
        case _:
            return RefusedOrder(f"this worker knows no command {action!r}{did_you_mean(action, ACTIONS)}")


def _drain(action: str, value: Any) -> Order:
    if action == "resume":
        return Drain(False)
    word = value.lower() if isinstance(value, str) else value
    if word is None or word is True or word == "on":
        return Drain(True)
    if word is False or word == "off":
        return Drain(False)
    return RefusedOrder(_wrong(action, value, 'nothing or "on", to begin; "off", to end it'))


def _number(value: Any) -> int | None:
    """A whole number, also one that was typed; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _wrong(action: str, value: Any, right: str) -> str:
    shown = repr(value)
    return f"{action}: {shown if len(shown) <= 80 else shown[:80] + '…'} must be {right}"


CarryOut = Callable[[Order, str, Broker], CommandReply | None]


class CommandPoller:
    """A chore. `carry_out` is given each order once, and answers it now or later. Owned by the consumer thread, like all chores."""

    def __init__(self, worker_id: str, started_at: float, most_seats: int, carry_out: CarryOut) -> None:
        """`carry_out(order, command id, broker)`: its reply, or None where `answered` will be called with it. Where it raises
        BrokerUnavailable, nothing was done."""
        self._worker_id, self._started_at, self._most_seats, self._carry_out = worker_id, started_at, most_seats, carry_out
        self._begun: set[str] = set()  # ids of those that were carried out, and that the broker may still name
        self._replies: dict[str, CommandReply] = {}  # by command, those that are to be stored
        self.due = 0.0
        self._last = 0.0

    def notified(self, now: float) -> None:
        self.due = min(self.due, max(now, self._last + LOOK_SOON))

    def answered(self, command_id: str, reply: CommandReply) -> None:
        self._replies[command_id] = reply
        self.due = 0.0

    def run(self, broker: Broker, now: float) -> None:
        self._store_replies(broker)
        found = broker.commands(self._worker_id, self._started_at)
        self._last, self.due = now, now + LOOK_EVERY
        self._begun &= {command.id for command in found}
        for command in found:
            if command.id not in self._begun:
                self._begin(command, broker)
        self._store_replies(broker)

    def _begin(self, command: Command, broker: Broker) -> None:
        reply = self._carry_out(order_of(command.action, command.value, self._most_seats), command.id, broker)
        self._begun.add(command.id)
        if reply is not None:
            self._replies[command.id] = reply

    def _store_replies(self, broker: Broker) -> None:
        for command_id, reply in list(self._replies.items()):
            broker.reply(command_id, reply)
            del self._replies[command_id]

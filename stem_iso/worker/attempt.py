"""One attempt at a task, from its lease to its settlement, and the messages of other threads to the consumer.

    1 leased ─ 2 decoded ─ 3 resolved ─ 4 admitted ─ 5 marked ─ 6 submitted ─ 7 begun ─ 8 ended ─ 9 settled
               └── undecodable, unregistered, invalid, revoked, expired: straight to 8 ──────┘

    steps 1–6 and 9   the consumer thread (`admission` decides 2–4)
    steps 7 and 8     the engine's thread, or an inline handler's, which puts a message into the inbox

An `Attempt` is the `Caller` of whoever runs it (the engine, or `Inline`): each method puts one message into the consumer's inbox and
returns, so no runner ever waits for the queue. Nothing is settled before `AttemptEnded` has come out of that inbox.
The consumer alone writes the fields, except `begun_at`: the runner writes it when the call's clock starts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from stem_iso.brokers.base import Delivery
from stem_iso.brokers.operations import CommandReply
from stem_iso.isolate.interfaces import Answer, IsolateNotice, LimitNotice
from stem_iso.outcome import Outcome, Progress, StopReason
from stem_iso.task.envelope import Envelope
from stem_iso.task.policy import Policy
from stem_iso.worker.output_tail import OutputTail

monotonic = time.monotonic


# -- messages: what other threads put into the consumer's inbox, and their only way to change its state ---------------------------------

# Structs, not frozen dataclasses: they are made in C and cost a tenth, and each task makes one on the hot path.


class AttemptEnded(msgspec.Struct):
    attempt: Attempt
    outcome: Outcome
    at: float  # monotonic


class Begun(msgspec.Struct):
    attempt: Attempt


class HandlerMessage(msgspec.Struct):
    attempt: Attempt
    payload: bytes
    answer: Answer | None


class Beaten(msgspec.Struct):
    attempt: Attempt


class LimitReached(msgspec.Struct):
    attempt: Attempt
    notice: LimitNotice


class IsolateChanged(msgspec.Struct):
    notice: IsolateNotice


class Trouble(msgspec.Struct):
    """An error that is no task's outcome; it becomes an ERROR event."""

    message: str
    traceback: str = ""
    attempt: Attempt | None = None


class StopRequested(msgspec.Struct):
    at_once: bool


class CommandAnswered(msgspec.Struct):
    """What became of an operator's command that the engine had to answer."""

    command_id: str
    reply: CommandReply


Message = AttemptEnded | Begun | HandlerMessage | Beaten | LimitReached | IsolateChanged | Trouble | StopRequested | CommandAnswered


# -- the attempt -----------------------------------------------------------------------------------------------------------------------


class AttemptPort(Protocol):
    """Where attempts report to."""

    @property
    def wants_begun(self) -> bool:
        """Whether anybody listens to STARTED, or to the signal of it."""

    @property
    def put(self) -> Callable[[Message], None]: ...

    @property
    def put_now(self) -> Callable[[Message], None]: ...

    @property
    def output(self) -> Callable[[Attempt, int, str, str, bytes], object]: ...


class Attempt:
    """The state of one leased delivery; also the `Caller` of its call."""

    __slots__ = (
        *("alone", "begun_at", "counted", "delivery", "envelope", "halt", "isolated", "killable", "killed", "lost"),
        *("meta", "noted_at", "policy", "port", "progress", "reported", "stop_reason", "tail", "take_back"),
    )

    def __init__(self, port: AttemptPort, delivery: Delivery, envelope: Envelope, policy: Policy) -> None:
        self.port, self.delivery, self.envelope, self.policy = port, delivery, envelope, policy
        self.begun_at = 0.0  # monotonic, 0 before step 7
        self.counted = False  # among those that began
        self.halt: Callable[[StopReason], None] | None = None  # how its runner ends it; None before step 6
        self.take_back: Callable[[], bool] | None = None  # how its runner gives it up before step 7; None where step 7 follows at once
        self.stop_reason: StopReason | None = None  # the first stop that was asked for
        self.lost = False  # the delivery is another's, or has been given up: nothing may be settled
        self.killable = True  # False for an inline handler in this process: it can be asked to end, no more
        self.alone = True  # False for a thread, here or in the inline host: nobody can end it and spare its neighbours
        self.meta: dict[str, Any] | None = None  # what the handler wrote, None where it wrote nothing
        self.progress: Progress | None = None
        self.reported = False  # an error tracker has its error, from where the handler ran
        self.isolated = False  # it has a process of its own
        self.killed = False  # that process died before the handler's end: nothing that stands around the handler has seen its end
        self.noted_at = 0.0  # monotonic, when `meta` and `progress` were last stored
        self.tail: OutputTail | None = None  # the last lines that it printed; None before the first

    def __repr__(self) -> str:
        return f"<Attempt {self.envelope.name} {self.envelope.id} {self.envelope.run}.{self.envelope.attempt}>"

    def stop(self, reason: StopReason) -> None:
        """Have its runner end it; the first reason stands. The attempt is over when `AttemptEnded` comes, not before."""
        if self.stop_reason is None and self.halt is not None:
            self.stop_reason = reason
            self.halt(reason)

    def withdraw(self) -> bool:
        """True if the attempt had not begun, and never will: no message about it comes any more."""
        return not self.begun_at and self.take_back is not None and self.take_back()

    def begun_on_the_clock(self) -> float:
        """When it began, by the wall clock: not later than what its handler logs."""
        return time.time() - (monotonic() - self.begun_at)

    # -- `Caller`, on the runner's thread -----------------------------------------------------------------------------------------

    def sent(self) -> None:
        first, self.begun_at = not self.begun_at, monotonic()
        if first and (self.port.wants_begun or self.policy.cpus is not None):
            self.port.put_now(Begun(self))

    def on_message(self, payload: bytes, answer: Answer | None) -> None:
        self.port.put_now(HandlerMessage(self, payload, answer))

    def beat(self) -> None:
        self.port.put_now(Beaten(self))

    def limit_reached(self, notice: LimitNotice) -> None:
        self.port.put_now(LimitReached(self, notice))

    def output(self, level: int, logger: str, text: str, details: bytes = b"") -> None:
        if self.tail is None:
            self.tail = OutputTail()
        self.tail.add(level, logger, text)
        self.port.output(self, level, logger, text, details)

    def received(self, descriptor: int) -> None:
        os.close(descriptor)  # no task sends one; a handler that writes to every descriptor might

    def ended(self, outcome: Outcome) -> None:
        self.port.put(AttemptEnded(self, outcome, monotonic()))

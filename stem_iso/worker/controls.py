"""The controls of a worker: carry out what operators ask for.

    Order ──> intake (pauses, seats, drain) · engine (kill, stack, seats) · log level · the launcher, or the inbox (stop)

Each order is carried out on the consumer thread, which waits for none of them but the broker's answer about pauses.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import assert_never

from stem_iso.brokers.base import Broker
from stem_iso.brokers.operations import CommandReply
from stem_iso.worker.attempt import CommandAnswered, Message, StopRequested
from stem_iso.worker.commands import Drain, Kill, Order, ReadPauses, RefusedOrder, Resize, SetLogLevel, ShowStack, Stop
from stem_iso.worker.dispatcher import Dispatcher
from stem_iso.worker.inbox import Inbox
from stem_iso.worker.intake import Intake
from stem_iso.worker.maintenance import PauseReader
from stem_iso.worker.reporting.events import EventEmitter


class Controls:
    """Owned by the consumer thread. `launcher`: the process that counts this worker's signals; None for an embedded worker."""

    def __init__(
        self,
        intake: Intake,
        pauses: PauseReader,
        hosts: Dispatcher,
        inbox: Inbox[Message],
        events: EventEmitter,
        *,
        launcher: int | None,
        set_log_level: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        """`changed`: what others see of this worker has."""
        self._intake, self._pauses, self._hosts, self._inbox, self._events = intake, pauses, hosts, inbox, events
        self._launcher, self._set_log_level, self._changed = launcher, set_log_level, changed

    def carry_out(self, order: Order, command_id: str, broker: Broker) -> CommandReply | None:
        """The reply; None where it comes through the inbox. Raises BrokerUnavailable with nothing done."""
        match order:
            case RefusedOrder(why):
                return self._reply(False, why)
            case Kill(pid):
                self._log(f"isolate {pid} is to be killed")
                self._hosts.kill(pid, partial(self._killed, command_id, pid))
                return None
            case ShowStack(pid):
                self._hosts.stack(pid, partial(self._stack_came, command_id, pid))
                return None
            case ReadPauses():
                self._pauses.run(broker, monotonic())
            case Resize(seats):
                self._resize(seats)
            case Drain(draining):
                self._log("it drains: what runs has its time, and nothing new is taken" if draining else "it takes tasks again")
                self._intake.drain(draining)
                self._changed()
            case Stop():
                self._log("it is to stop")
                self._stop()
            case SetLogLevel(level):
                self._set_log_level(level)
                self._log(f"its log is at level {level}")
            case _:
                assert_never(order)
        return self._reply(True)

    def _resize(self, seats: int) -> None:
        self._log(f"it has {seats} seats now, and had {self._intake.seats}")
        self._intake.resize(seats)
        self._hosts.resize(seats)
        self._changed()

    def _stop(self) -> None:
        """By the launcher where there is one: it alone counts, and it says how long the end may take."""
        if self._launcher is not None and self._launcher == os.getppid():
            with suppress(ProcessLookupError):  # it dies at this moment, and this worker leaves with it
                os.kill(self._launcher, signal.SIGTERM)
        else:
            self._inbox.put_now(StopRequested(False))

    def _log(self, text: str) -> None:
        self._events.note(logging.INFO, f"an operator's command: {text}")

    def _reply(self, done: bool, text: str = "") -> CommandReply:
        return CommandReply(worker_id=self._events.worker_id, done=done, text=text)

    # -- on the engine's thread ----------------------------------------------------------------------------------------------------

    def _killed(self, command_id: str, pid: int, found: bool) -> None:
        self._answer(command_id, found, "" if found else f"kill: {self._none(pid)}")

    def _stack_came(self, command_id: str, pid: int, stack: str | None) -> None:
        if stack is None:
            self._answer(command_id, False, f"stack: nothing runs in an isolate {pid} of this worker; {self._those()}")
        elif not stack:
            self._answer(command_id, False, f"stack: isolate {pid} did not answer; it may be stopped, or wait for the kernel: ask again")
        else:
            self._answer(command_id, True, stack)

    def _none(self, pid: int) -> str:
        return f"this worker has no isolate {pid}; {self._those()}"

    def _those(self) -> str:
        views = self._hosts.views()
        return f"its isolates are {', '.join(f'{view.pid} ({view.state})' for view in views)}" if views else "it has no isolates now"

    def _answer(self, command_id: str, done: bool, text: str) -> None:
        self._inbox.put_now(CommandAnswered(command_id, self._reply(done, text)))

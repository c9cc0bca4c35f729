"""The consumer: one thread that owns the broker's connection and all state of the queue.

    one turn   inbox ──> ends, context requests, stops    the messages of other threads
               broker: renew ─ context requests ─ exchange(settlements, free seats) ─ maintenance ─ events
               deliveries ──> admission ──> (limits, mark) ──> dispatcher
               park in poll(): the inbox's eventfd, the broker's watch, until the earliest thing that is due

Rules
 1. The engine's thread and the handlers' only append to the inbox; this thread alone touches everything below. No locks, no asyncio.
 2. Settling and fetching are one step (`exchange`). It is made at once where a seat would stand idle; otherwise settlements are collected
    for a millisecond, or until there are 64: the batch window. While tasks are short, a few are fetched ahead of the seats (`prefetch`);
    as long as some of them wait, the window is 4 ms, or until half of them have begun: an exchange costs the more the fewer it settles.
 3. A broker that is away stops the turn, not the tasks: settlements are kept in order, context requests are answered with the error, and
    the broker is tried again after 0.1 s, doubled up to 5 s. When it is back, leases are renewed before anything else.
 4. Nothing is settled before `AttemptEnded`. Leases live until their settlement is stored, also through a long drain.
 5. While all seats are taken, a watch that fires without end (a producer that never rests) is read every 20 ms, for revocations.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from math import inf

import msgspec

from stem_iso.brokers.base import Broker, Delivery, Revocation, WorkWatch
from stem_iso.errors import BrokerUnavailable
from stem_iso.worker.attempt import CommandAnswered, Message, StopRequested
from stem_iso.worker.attempts import Attempts
from stem_iso.worker.commands import CommandPoller
from stem_iso.worker.inbox import Inbox
from stem_iso.worker.maintenance import REVOCATIONS_EVERY, Chore, EndNoticePublisher, Recoverer, RevocationPoller
from stem_iso.worker.options import WorkerOptions
from stem_iso.worker.prefetch import PATIENCE
from stem_iso.worker.reporting.events import EventEmitter
from stem_iso.worker.scheduler import Scheduler
from stem_iso.worker.shutdown import Shutdown
from stem_iso.worker.takeover import Takeover

BATCH_WINDOW, BATCH_MOST = 0.001, 64  # the batch window: how long settlements may wait, and how many of them
LONG_WINDOW = 0.004  # where further tasks wait here for a seat, so that no seat waits for the exchange
FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 5.0
LONGEST_PARK = 60.0
BURST_POLL = 0.25  # how soon a retry that another worker took is no longer waited for

monotonic = time.monotonic


class Consumer:
    """`run` is the thread. Built by `WorkerRuntime`, on that thread, with a broker that has answered."""

    def __init__(
        self,
        options: WorkerOptions,
        broker: Broker,
        inbox: Inbox[Message],
        attempts: Attempts,
        events: EventEmitter,
        scheduler: Scheduler,
        recoverer: Recoverer,
        takeover: Takeover,
        commands: CommandPoller,
        chores: list[Chore],
    ) -> None:
        self._options, self._broker, self._inbox, self._attempts, self._events = options, broker, inbox, attempts, events
        self._revocations = RevocationPoller(options.boot, self._revoke)
        self._recoverer, self._takeover, self._commands = recoverer, takeover, commands
        self._intake, self._vitals = attempts.intake, options.origin.vitals
        self._intake.changed = self._intake_changed
        self._scheduler = scheduler
        self._end_notices = EndNoticePublisher(events)
        self._chores: tuple[Chore, ...] = (self._recoverer, takeover, self._revocations, self._end_notices, scheduler, commands, *chores)
        self._incoming: deque[Delivery] = deque()  # leased, and not yet admitted: one for an inline handler may have to wait
        self._taken_at = 0.0  # when the last of them came
        self._shutdown = Shutdown(options, attempts, events, self._give_back)
        self._may_have_work = True  # an exchange may find something in the queues
        self._exchanged_at = -inf
        self._due_at = inf  # when the earliest delayed task is due
        self._retry_at, self._backoff = 0.0, 0.0  # while the broker is away
        self._away_since = inf  # until it has answered again
        self._watch: WorkWatch = broker.watch(options.boot, options.queues)
        self._inbox.watch(self._watch.fileno())
        self._watch_at = 0.0
        self._watch_paused_until = -inf  # -inf: the watch is in the poll

    def run(self) -> None:
        while not self._shutdown.over:
            try:
                self._turn()
            except BaseException:  # of one turn: the next one may do better, and user code in it must not end the worker
                self._events.trouble("a turn of the worker failed", traceback=traceback.format_exc())  # the log's listener writes it
                self._retry_at = monotonic() + FIRST_BACKOFF
        self._listen(False)
        self._watch.close()

    # -- one turn ------------------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._handle_messages()
        now = monotonic()
        self._vitals.turned(now, len(self._attempts), self._intake.seats, not self._shutdown.running)
        if self._shutdown.running and self._options.burst and self._idle():
            self._shutdown.request(False, now)
        self._shutdown.advance(now, len(self._incoming))
        if now >= self._stale_at():
            self._attempts.pace.stalled()
            self._attempts.give_back_ahead()
            self._give_back()
        if now >= self._retry_at:
            try:
                self._work(now)
            except BrokerUnavailable as error:
                self._broker_is_away(error)
            else:
                self._backoff = 0.0
        elif self._attempts.requests.waiting:
            self._attempts.requests.refuse(BrokerUnavailable("the broker is away; the worker is trying again"))
        if not self._shutdown.over:
            self._park()

    def _handle_messages(self) -> None:
        for _ in range(len(self._inbox)):
            message = self._inbox.take()
            if isinstance(message, StopRequested):
                self._shutdown.request(message.at_once, monotonic())
            elif isinstance(message, CommandAnswered):
                self._commands.answered(message.command_id, message.reply)
            elif message is not None:
                self._attempts.on_message(message)

    def _work(self, now: float) -> None:
        """All that needs the broker. Raises BrokerUnavailable; what was done stays done, and the rest is still due."""
        attempts, broker = self._attempts, self._broker
        if receipts := attempts.leases.due(now):
            lost = broker.renew(receipts)
            self._reached()
            attempts.leases.renewed(receipts, now)
            attempts.lost(lost)
        if now >= self._watch_at:
            self._check_watch(now)
        if attempts.requests.waiting:
            attempts.requests.answer(broker)
        if attempts.requests.next_note() <= now:
            attempts.requests.note(broker, now)
        self._fill(now)  # before maintenance, where each request would delay the handler by a round trip
        if self._recoverer.due <= now:
            attempts.drop_strays(self._incoming)
        for chore in self._chores:
            if chore.due <= now:
                chore.run(broker, now)
        self._fill(now)
        self._events.forward(broker)

    def _fill(self, now: float) -> None:
        self._take_in()
        if self._must_exchange(now):
            self._exchange()

    def _must_exchange(self, now: float) -> bool:
        idle, unstored = self._idle_seats(), len(self._attempts.settlements)
        if unstored and (idle or unstored >= BATCH_MOST or now >= self._exchanged_at + self._window()):
            return True
        found = self._may_have_work or self._recoverer.found or self._scheduler.fired
        if unstored and found and self._stock_is_low():
            return True
        return idle > 0 and (found or now >= min(self._due_at, self._block_until()))

    def _window(self) -> float:
        return LONG_WINDOW if self._attempts.waiting else BATCH_WINDOW

    def _stock_is_low(self) -> bool:
        """Half of what may wait here for a seat is gone."""
        stock = self._attempts.room - self._intake.seats
        return 0 < stock <= 2 * self._want()

    def _idle_seats(self) -> int:
        """How many seats may be filled and have no delivery at hand."""
        if not (self._shutdown.running and self._intake.open):
            return 0
        return max(0, self._intake.seats - len(self._attempts) - len(self._incoming))

    def _want(self) -> int:
        if not (self._shutdown.running and self._intake.open):
            return 0
        return max(0, self._attempts.room - len(self._attempts) - len(self._incoming))

    def _block_until(self) -> float:
        return self._exchanged_at + self._broker.options.block_time

    def _exchange(self) -> None:
        want = self._want()
        batch = self._attempts.settlements.batch()
        self._may_have_work = True  # until the answer is here
        queues = self._intake.queues if want else self._options.queues
        answer = self._broker.exchange(self._options.boot, batch, queues, want)
        self._reached()
        now = self._exchanged_at = monotonic()
        self._may_have_work = answer.ready
        self._recoverer.found = self._scheduler.fired = False
        self._due_at = inf if answer.next_due is None else now + answer.next_due
        self._attempts.stored(self._attempts.settlements.stored(answer.verdicts))
        for delivery in answer.deliveries:
            self._attempts.leased(delivery, now)
        if answer.deliveries:
            self._taken_at = now
            self._incoming.extend(answer.deliveries)
        self._take_in()

    def _take_in(self) -> None:
        attempts = self._attempts
        while self._incoming and len(attempts) < attempts.room:
            delivery = self._incoming.popleft()
            try:
                if not attempts.admit(delivery, self._broker, ahead=len(attempts) >= self._intake.seats):
                    self._incoming.appendleft(delivery)
                    return
            except BrokerUnavailable:
                self._incoming.appendleft(delivery)
                raise
            except BaseException:  # the broker is not asked: the lease runs out and is counted, and in the end the task is dead-lettered
                attempts.leases.drop(delivery.receipt)
                raise
            if attempts.lined_up:
                attempts.lined_up, self._may_have_work = False, True

    def _give_back(self) -> None:
        """Give the deliveries at hand back to their queues."""
        while self._incoming:
            self._attempts.give_back(self._incoming.popleft())

    def _intake_changed(self) -> None:
        """What was paused, resumed, or taken away in seats: what may not begin goes back, and the next exchange is due."""
        at_hand, self._incoming = self._incoming, deque()
        for delivery in at_hand:
            if self._intake.takes_from(delivery.queue):
                self._incoming.append(delivery)
            else:
                self._attempts.give_back(delivery)
        self._attempts.give_back_unwanted()
        self._may_have_work = True

    def _revoke(self, orders: list[Revocation]) -> None:
        """Mark what was revoked among the deliveries at hand, so that it does not run; `Attempts` ends what runs."""
        revoked = {order.receipt for order in orders}
        if revoked:
            self._incoming = deque(
                msgspec.structs.replace(each, revoked=True) if each.receipt in revoked else each for each in self._incoming
            )
            self._attempts.revoke(orders)

    # -- the broker ----------------------------------------------------------------------------------------------------------------

    def _reached(self) -> None:
        """The broker has answered."""
        if self._away_since != inf:
            self._events.note(logging.INFO, f"the broker is back, after {monotonic() - self._away_since:.1f} s")
            self._away_since, self._vitals.broker_up = inf, True

    def _broker_is_away(self, error: BrokerUnavailable) -> None:
        self._away_since, self._vitals.broker_up = min(self._away_since, monotonic()), False
        self._backoff = min(self._backoff * 2, LONGEST_BACKOFF) or FIRST_BACKOFF
        self._retry_at = monotonic() + self._backoff
        self._watch_at, self._may_have_work = 0.0, True
        self._attempts.requests.refuse(error)
        self._events.trouble(f"the broker cannot be reached ({error}); the next try is in {self._backoff:g} s")

    def _check_watch(self, now: float) -> None:
        self._watch_at = now + self._watch.interval
        if self._watch.changed():
            self._may_have_work = True
            self._revocations.notified(now)
            self._scheduler.notified(now)
            self._end_notices.notified(now)
            self._commands.notified(now)
            if not self._idle_seats():
                self._listen(False)
                self._watch_paused_until = now + REVOCATIONS_EVERY

    def _listen(self, listening: bool) -> None:
        if listening and self._watch_paused_until != -inf:
            self._watch_paused_until = -inf
            self._inbox.watch(self._watch.fileno())
        elif not listening and self._watch_paused_until == -inf:
            self._watch_paused_until = inf
            self._inbox.unwatch(self._watch.fileno())

    # -- parking -------------------------------------------------------------------------------------------------------------------

    def _park(self) -> None:
        now = monotonic()
        if now >= self._watch_paused_until or self._idle_seats():
            self._listen(True)
        wait = min(self._wake_at(now) - now, self._vitals.due - now, LONGEST_PARK)
        self._inbox.quorum = 1 + self._attempts.waiting // 2
        if self._inbox.quorum > 1:
            wait = min(wait, self._window())
        if self._inbox.park(wait):
            self._watch_at = 0.0

    def _wake_at(self, now: float) -> float:
        bound = self._shutdown.bound()
        if now < self._retry_at:
            return min(bound, self._retry_at)
        if self._shutdown.settled() or (self._options.burst and self._idle()):
            return now
        attempts = self._attempts
        at = min(bound, attempts.leases.next_due(), attempts.requests.next_note(), self._watch_at)
        at = min(at, *(chore.due for chore in self._chores))
        if self._watch_paused_until != -inf:
            at = min(at, self._watch_paused_until)
        if attempts.settlements:
            at = min(at, self._exchanged_at + self._window())
        at = min(at, self._stale_at())
        if self._idle_seats():
            at = now if self._may_have_work else min(at, self._due_at, self._block_until())
        return min(at, now + BURST_POLL) if self._options.burst else at

    def _stale_at(self) -> float:
        waits = self._incoming and len(self._attempts) >= self._intake.seats
        return min(self._attempts.stale_at(), self._taken_at + PATIENCE if waits else inf)

    def _idle(self) -> bool:
        """For --burst: nothing ready, running, awaiting a retry or its turn in a limit, nor left by a worker that died on this machine.
        What is paused is none of these, and what a drain leaves in the queue neither."""
        ready = self._may_have_work and self._intake.open
        if len(self._attempts) or self._incoming or len(self._attempts.settlements) or ready or self._takeover.pending:
            return False
        return not self._attempts.settlements.awaits(time.time(), self._due_at < inf, self._intake.takes)

"""The allocator: how many isolates there are, and which call goes where. Pure: events in, orders out, `now` as an argument.

    submit ─> waiting (priority, then arrival) ─> Assign(isolate, call)        isolates: booting, idle, busy, dying, stuck
                                               └> SharedSlot(call): to the inline host

Rules
 1. No call waits beside a free isolate while a seat is free. A seat is taken from the assignment to the confirmed end of the call.
 2. On demand: enough isolates for the calls there are, plus `spares`; never more than `size + spares` that live or are dying.
 3. No churn: an isolate that stands idle is kept, unless `resize` asked for fewer.
 4. Calls start by priority (highest first), then by arrival; a requeued call keeps its place.
 5. A boot that fails delays the next one (0.1 s, doubled, 30 s at most), until one that was begun after it succeeds. After BOOT_TRIES
    failures in a row whatever waits is given up, and so is what comes later if the next boot fails as well: a clear error, never a spawn
    loop, never a call that waits for ever. But where other isolates boot or run, nothing is given up: what waits has its turn there.
 6. An isolate that will not die (`stuck`) gives its seat back: it counts no longer.
 7. Calls for the inline host take their turns among the others, and need a seat and an open host.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Generic, NamedTuple, TypeVar

BOOT_TRIES = 3
STALE_TURNS = 256
FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 30.0


def backoff(failures: int) -> float:
    """Seconds to the next boot after so many that failed in a row."""
    return min(FIRST_BACKOFF * 2.0 ** min(failures - 1, 16), LONGEST_BACKOFF)  # 2.0 ** 1024 is an error: the morning after a bad night


C = TypeVar("C")
H = TypeVar("H")  # calls for the inline host


class Assign(NamedTuple, Generic[C]):
    isolate: int
    call: C


@dataclass(frozen=True, slots=True)
class SharedSlot(Generic[H]):
    """The inline host may run this call."""

    call: H


@dataclass(frozen=True, slots=True)
class Spawn:
    isolate: int


@dataclass(frozen=True, slots=True)
class Retire:
    """Kill this idle isolate: `resize` asked for fewer."""

    isolate: int


@dataclass(frozen=True, slots=True)
class GiveUp(Generic[C]):
    """This call cannot be run: isolates do not boot."""

    call: C


Order = Assign[C] | SharedSlot[H] | Spawn | Retire | GiveUp[C]


class Allocator(Generic[C, H]):
    """Counts and queues. Owned by the engine, under its lock. Isolates are numbers that are never used twice."""

    def __init__(self, size: int, spares: int) -> None:
        self.size, self.spares = size, spares
        self.idle: list[int] = []  # the last one used is used first: its caches are warm
        self.booting: set[int] = set()
        self.busy: set[int] = set()  # a call is there, the isolate dying or not
        self.dying: set[int] = set()
        self._calls: dict[int, C] = {}  # those that wait, by arrival
        self._turns: list[tuple[int, int]] = []  # a heap of (-priority, arrival); one that was withdrawn stays in it until its turn
        self._for_host: list[tuple[int, int, H]] = []
        self.hosted = 0  # seats that calls in inline hosts have
        self.host_open = False
        self._arrivals = 0
        self._isolates = 0
        self.boot_failures = 0
        self._newest_failed = 0  # the last begun of the isolates whose boot failed
        self.boot_after = 0.0  # no spawn before this time
        self.closed = False
        self.paused = False  # nobody is there to spawn

    @property
    def waiting(self) -> int:
        """Calls that wait for an isolate."""
        return len(self._calls)

    @property
    def living(self) -> int:
        return len(self.idle) + len(self.booting) + len(self.busy | self.dying)

    # -- calls ---------------------------------------------------------------------------------------------------------------------

    def submit(self, call: C, priority: int, now: float) -> tuple[int, list[Order[C, H]]]:
        """The call's arrival number, for `requeue` and `withdraw`, and what to do."""
        self._arrivals += 1
        if not self.idle or self._for_host or len(self.busy) + self.hosted >= self.size:
            self.requeue(call, priority, self._arrivals)
            return self._arrivals, self.decide(now)
        orders: list[Order[C, H]] = [self._seat(call)]  # by rule 1 nobody waits before it
        return self._arrivals, self._adjusted(orders, now)

    def submit_hosted(self, call: H, priority: int, now: float) -> tuple[int, list[Order[C, H]]]:
        """The same for the inline host."""
        self._arrivals += 1
        heappush(self._for_host, (-priority, self._arrivals, call))
        return self._arrivals, self.decide(now)

    def requeue_hosted(self, call: H, priority: int, arrival: int) -> None:
        heappush(self._for_host, (-priority, arrival, call))

    def withdraw_hosted(self, call: H | None = None) -> list[H]:
        """Take back this call (None: all) that waits for the inline host; those that did, in the order of their turns."""
        found = sorted(entry for entry in self._for_host if call is None or entry[2] is call)
        self._for_host = [entry for entry in self._for_host if entry not in found]
        heapify(self._for_host)
        return [entry[2] for entry in found]

    @property
    def waiting_for_host(self) -> int:
        return len(self._for_host)

    def unseated(self, now: float) -> list[Order[C, H]]:
        """A call in an inline host has ended."""
        self.hosted -= 1
        return self.decide(now)

    def requeue(self, call: C, priority: int, arrival: int) -> None:
        heappush(self._turns, (-priority, arrival))
        self._calls[arrival] = call

    def withdraw(self, arrival: int) -> bool:
        """Take a call back that has not been assigned; False if it is not waiting."""
        if self._calls.pop(arrival, None) is None:
            return False
        if len(self._turns) > 2 * len(self._calls) + STALE_TURNS:  # calls that are withdrawn while all seats are taken would add up
            self._turns = [turn for turn in self._turns if turn[1] in self._calls]
            heapify(self._turns)
        return True

    def withdraw_all(self) -> list[C]:
        """Every call that waits, in the order of their turns."""
        calls: list[C] = []
        while (call := self._pop()) is not None:
            calls.append(call)
        return calls

    # -- isolates ------------------------------------------------------------------------------------------------------------------

    def ready(self, isolate: int, now: float) -> list[Order[C, H]]:
        self.booting.discard(isolate)
        if isolate > self._newest_failed:
            self.boot_failures, self.boot_after = 0, 0.0
        self.idle.insert(0, isolate)  # behind those that have run something
        return self.decide(now)

    def freed(self, isolate: int, now: float) -> list[Order[C, H]]:
        """Its call has ended and it can take another."""
        simple = not self._for_host and len(self.busy) + self.hosted <= self.size and isolate in self.busy
        if simple and (call := self._pop()) is not None:  # its seat goes to the next: what `decide` would come to, by a longer way
            return self._adjusted([Assign(isolate, call)], now)
        self.busy.discard(isolate)
        self.idle.append(isolate)
        return self.decide(now)

    def killed(self, isolate: int) -> None:
        """It will die; whatever it holds keeps its seat until `exited`."""
        if isolate in self.idle:
            self.idle.remove(isolate)
        self.booting.discard(isolate)
        self.dying.add(isolate)

    def answered(self, isolate: int) -> None:
        """Its call was reported and it will not take another: the seat is free before the exit."""
        self.busy.discard(isolate)

    def stuck(self, isolate: int, now: float) -> list[Order[C, H]]:
        self._forget(isolate)
        return self.decide(now)

    def exited(self, isolate: int, now: float) -> list[Order[C, H]]:
        self._forget(isolate)
        return self.decide(now)

    def boot_failed(self, isolate: int, now: float) -> list[Order[C, H]]:
        self._forget(isolate)
        self.boot_failures += 1
        self._newest_failed = max(self._newest_failed, isolate)
        self.boot_after = now + backoff(self.boot_failures)
        if self.boot_failures < BOOT_TRIES or self.idle or self.booting or self.busy - self.dying:
            return self.decide(now)
        given_up: list[Order[C, H]] = [GiveUp(call) for call in self.withdraw_all()]
        return given_up + self.decide(now)

    def resize(self, size: int, spares: int, now: float) -> list[Order[C, H]]:
        self.size, self.spares = size, spares
        return self.decide(now)

    # -- decisions -----------------------------------------------------------------------------------------------------------------

    def decide(self, now: float) -> list[Order[C, H]]:
        """Assign what can be assigned, spawn what is missing, retire what is too much."""
        orders: list[Order[C, H]] = []
        while len(self.busy) + self.hosted < self.size:
            if self._for_host and self.host_open and self._host_is_next():
                self.hosted += 1
                orders.append(SharedSlot(heappop(self._for_host)[2]))
            elif self.idle and (call := self._pop()) is not None:
                orders.append(self._seat(call))
            else:
                break
        return self._adjusted(orders, now)

    def _seat(self, call: C) -> Assign[C]:
        isolate = self.idle.pop()
        self.busy.add(isolate)
        return Assign(isolate, call)

    def _adjusted(self, orders: list[Order[C, H]], now: float) -> list[Order[C, H]]:
        if len(self.booting) + len(self.idle) + len(self.busy) != self.size + self.spares or self.dying:
            self._adjust(orders, now)
        return orders

    def _adjust(self, orders: list[Order[C, H]], now: float) -> None:
        wanted = 0 if self.closed or self.paused else min(self.size, len(self.busy) + self.waiting) + self.spares
        # While boots fail one isolate is tried at a time, or each round would cost as many processes as there are calls.
        room = 1 - len(self.booting) if self.boot_failures else wanted
        if now >= self.boot_after:
            while self.living < wanted and room > 0:
                self._isolates += 1
                room -= 1
                self.booting.add(self._isolates)
                orders.append(Spawn(self._isolates))
        while self.idle and len(self.idle) + len(self.booting) + len(self.busy - self.dying) > self.size + self.spares:
            isolate = self.idle.pop(0)
            self.dying.add(isolate)
            orders.append(Retire(isolate))

    def _host_is_next(self) -> bool:
        self._drop_stale_turns()
        return not self.idle or not self._turns or self._for_host[0][:2] < self._turns[0]

    def _drop_stale_turns(self) -> None:
        while self._turns and self._turns[0][1] not in self._calls:
            heappop(self._turns)

    def _pop(self) -> C | None:
        while self._turns:
            call = self._calls.pop(heappop(self._turns)[1], None)
            if call is not None:
                return call
        return None

    def _forget(self, isolate: int) -> None:
        if isolate in self.idle:
            self.idle.remove(isolate)
        for group in (self.booting, self.busy, self.dying):
            group.discard(isolate)

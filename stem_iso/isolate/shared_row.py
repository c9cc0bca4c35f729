"""The shared row: what core, keeper and isolate know of one isolate at the same instant, in shared memory; and what the keeper makes of it.

    table (one memfd for all seats; core and keeper)          page (one memfd an isolate; core, keeper, isolate)
    ┌ header   armed: when the keeper wakes by itself ┐       ┌ started: the call whose whole frame the isolate held  ┐
    ├ seat 0   keeper's line: verdict                 │       └ finished: the call whose handler has ended            ┘
    │          core's line: call, deadline            │
    └ seat 1 …                                        ┘       core's line, in a host's page: barred
                                                              a host's words: call and thread, of those that run
                                                              One writer a cache line; one aligned 8-byte store a word.

Order of writes, which is what makes two processes agree without a lock
    core, to send        deadline = 0, call = n, deadline = d, fence, read verdict: not 0 -> do not send, kill, requeue uncounted
    core, at the reply   deadline = 0
    isolate              started = n (frame whole) ... finished = n, then the reply
    keeper               at deadline + MARGIN with started == call != finished: verdict = (call, reason), fence, look again;
                         anything moved on: verdict = 0; else kill

    core, to take back what a host has not begun        barred = started + 1, fence, read started: what is beyond it runs elsewhere
    host                 started = n, fence, read barred: n is not below it -> do not run it, say so

So either the keeper sees that the call moved on, or the core sees the verdict. A memfd of the isolate's own, because mapping the table
would give it every other row. `struct.pack_into` stores byte by byte and a kill can tear it; a cast memoryview stores the word at once.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from math import inf
from threading import Lock

MARGIN = 0.030  # how long after the limit the keeper waits for the core: a healthy core needs 2 ms
RETRY = 0.005  # how soon it looks again at a call past its limit that its isolate has not read yet
LIMIT = 1  # the reason in a verdict; 0 is "no verdict"

LINE = 8  # words in a cache line of 64 bytes
SEAT = 2 * LINE
WORD = 8
SLOTS = 64, 448  # where the words of a host's calls begin in its page, and how many there are
THREAD_BITS = 22  # the kernel counts threads up to 2 ** 22


@dataclass(frozen=True, slots=True)
class SharedRow:
    """One look at a row. `deadline` is monotonic seconds, 0: none. Call numbers start at 1."""

    call: int
    deadline: float
    started: int
    finished: int
    verdict: int = 0


@dataclass(frozen=True, slots=True)
class Enforce:
    """The core should have killed this call and has not."""

    call: int


@dataclass(frozen=True, slots=True)
class CheckAgain:
    at: float


def judge(row: SharedRow, now: float) -> Enforce | CheckAgain:
    """What the keeper does about a row: enforce, or look again at a time (inf: when the core says so)."""
    if row.call == 0 or row.deadline == 0 or row.finished == row.call or row.verdict:
        return CheckAgain(inf)
    if now < row.deadline + MARGIN:
        return CheckAgain(row.deadline + MARGIN)
    if row.started != row.call:
        return CheckAgain(now + RETRY)
    return Enforce(row.call)


def stands(before: SharedRow, after: SharedRow) -> bool:
    """The second look, after the verdict was written: does the same call still run under the same limit?"""
    return after.call == before.call and after.deadline == before.deadline and after.finished != before.call


def pack_verdict(call: int, reason: int) -> int:
    return call << 8 | reason


def verdict_on(verdict: int, call: int) -> bool:
    """Whether a verdict names this call."""
    return verdict != 0 and verdict >> 8 == call


_fence = Lock()


def fence() -> None:
    """A full memory barrier: taking a lock is an atomic read-modify-write, which x86 and the C library of ARM order for us."""
    with _fence:
        pass


def table_size(seats: int) -> int:
    return (LINE + seats * SEAT) * WORD


class Table:
    """The rows of all seats. The core writes `call`, `deadline`; the keeper writes `armed`, `turns` and `verdict`."""

    def __init__(self, fd: int, seats: int) -> None:
        self._map = mmap.mmap(fd, table_size(seats))
        self._words, self._floats = memoryview(self._map).cast("Q"), memoryview(self._map).cast("d")

    def close(self) -> None:
        self._words.release()
        self._floats.release()
        self._map.close()

    @property
    def armed(self) -> float:
        return self._floats[0]

    @armed.setter
    def armed(self, at: float) -> None:
        self._floats[0] = at

    @property
    def turns(self) -> int:
        """Of the keeper's loop: while this grows it is at work."""
        return self._words[1]

    def count_turn(self) -> None:
        self._words[1] += 1

    def verdict(self, seat: int) -> int:
        return self._words[LINE + seat * SEAT]

    def set_verdict(self, seat: int, verdict: int) -> None:
        self._words[LINE + seat * SEAT] = verdict

    def call(self, seat: int) -> int:
        return self._words[2 * LINE + seat * SEAT]

    def deadline(self, seat: int) -> float:
        return self._floats[2 * LINE + seat * SEAT + 1]

    def set_deadline(self, seat: int, deadline: float) -> None:
        self._floats[2 * LINE + seat * SEAT + 1] = deadline

    def send(self, seat: int, call: int, deadline: float) -> bool:
        """The core's writes before it sends a call; False: a verdict stands, so it must not."""
        at = 2 * LINE + seat * SEAT
        self._floats[at + 1] = 0.0
        self._words[at] = call
        self._floats[at + 1] = deadline
        fence()
        return self._words[LINE + seat * SEAT] == 0

    def clear(self, seat: int) -> None:
        """For a new isolate; by the keeper, before it starts one."""
        for word in (LINE + seat * SEAT, 2 * LINE + seat * SEAT, 2 * LINE + seat * SEAT + 1):
            self._words[word] = 0

    def read(self, seat: int, page: Page) -> SharedRow:
        return SharedRow(self.call(seat), self.deadline(seat), page.started, page.finished, self.verdict(seat))


class Page:
    """The isolate's own words."""

    SIZE = 4096

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, self.SIZE)
        self._words = memoryview(self._map).cast("Q")

    def close(self) -> None:
        self._words.release()
        self._map.close()

    @property
    def started(self) -> int:
        return self._words[0]

    @started.setter
    def started(self, call: int) -> None:
        self._words[0] = call

    @property
    def finished(self) -> int:
        return self._words[1]

    @finished.setter
    def finished(self, call: int) -> None:
        self._words[1] = call

    @property
    def barred(self) -> int:
        """The first call that a host must not begin any more; 0: it may begin all."""
        return self._words[LINE]

    def may_begin(self, call: int) -> bool:
        """The host's writes before it begins a call; False: it has been taken back, or will be when the host says that it has not begun."""
        self._words[0] = call
        fence()
        return not 0 < self._words[LINE] <= call

    def take_back(self) -> int:
        """The core's writes; the last call that the host may have begun. What was sent after it, it never will."""
        self._words[LINE] = self._words[0] + 1
        fence()
        return self._words[0]

    def in_slot_of(self, call: int) -> int:
        """The call that has the slot of this one: of all calls, each 448th has the same."""
        return self._words[SLOTS[0] + call % SLOTS[1]] >> THREAD_BITS

    def set_thread(self, call: int, thread: int) -> None:
        """The host's, before a call's first step: the thread that runs it, as the kernel counts threads."""
        self._words[SLOTS[0] + call % SLOTS[1]] = call << THREAD_BITS | thread

    def thread_of(self, call: int) -> int:
        """0: its slot does not say."""
        word = self._words[SLOTS[0] + call % SLOTS[1]]
        return word & ((1 << THREAD_BITS) - 1) if word >> THREAD_BITS == call else 0

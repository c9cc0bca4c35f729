"""One inline host in the engine: an isolate with many calls. Decides one thing: whether the host has still a reason to live.

A host drains when a call in it is over, that is, was told to end and has not; and when it does not begin what it is sent, because C code
in it keeps the interpreter lock. It takes no more then, and what it has not begun runs elsewhere (`Page.take_back`). Where a call is over,
the host is killed when all that runs in it is over; else when it is empty.

What runs in it undisturbed is waited for, without a bound, because there is none that would be just: a thread may have hours of good work
left, and nobody can save what it has done so far. The price is a seat for each call that is over, held as long; each such call holds one
host, so there are never more hosts than seats, and one. A coroutine is waited for only while the loop turns: behind another that blocks it
there is nothing to wait for. Whether it turns is asked every second.

Not promised: a call that the host has read in the instant before the lock was taken waits for whoever has it, with its seat. A coroutine
that blocks the loop, and that no limit ends, holds up its neighbours, as everywhere in asyncio. A host is not recycled:
`max_calls` and `max_memory` are for isolates.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf

from stem_iso.isolate.child.setup import FORCED_STACK_SIGNAL
from stem_iso.isolate.engine.isolate import Isolate
from stem_iso.isolate.engine.lifecycle import State
from stem_iso.isolate.engine.shared_host.call import HostCall
from stem_iso.isolate.engine.timers import STACK_WAIT
from stem_iso.isolate.interfaces import Caller
from stem_iso.isolate.linux import signal_thread

PING_EVERY, PONG_WITHIN = 1.0, 2.0  # seconds


class StackRequest:
    """Somebody wants to see where all calls of a host are. `waiting`: one call of each thread, with the titles of those that it runs."""

    def __init__(self, waiting: dict[HostCall, str], answer: Callable[[str], None]) -> None:
        self.waiting, self.answer = waiting, answer
        self.text = ""

    def came(self, call: HostCall, stack: str) -> bool:
        """True where it was the last one."""
        if (titles := self.waiting.pop(call, None)) is not None and stack:
            self.text += f"{titles}\n{stack}\n"
        return not self.waiting


class SharedHost(Isolate):
    """Owned by the engine, under its lock."""

    shared = True

    def __init__(self, number: int, seat: int, boot_deadline: float, largest_frame: int) -> None:
        super().__init__(number, seat, boot_deadline, largest_frame)
        self.hosted: dict[int, HostCall] = {}  # by number, in the order they were sent
        self.draining = False
        self.requests: list[StackRequest] = []
        self.stacks: deque[HostCall] = deque()  # who waits for a stack; the first is being asked
        self._ping_at = inf
        self._pinged_at, self._ping = inf, 0
        self.blocked = False  # the loop has not answered

    def caller_of(self, number: int) -> Caller | None:
        call = self.hosted.get(number)
        return None if call is None else call.caller

    def beat(self, number: int, now: float) -> None:
        """No limit of a hosted call stands in the shared row."""
        if (call := self.hosted.get(number)) is not None:
            call.deadlines.beat(now)

    def thread_of(self, call: HostCall) -> int:
        """Where it runs, as the kernel counts threads; 0: not known. A frame has said so where its slot in the page was taken."""
        return call.thread or self.page.thread_of(call.number)

    @property
    def may_leave(self) -> bool:
        return self.booted and not self.hosted

    def alarm(self) -> float:
        at = super().alarm()
        if self.died_at or self.signalled_at:
            return at
        return min(at, self._ping_at, self._pinged_at + PONG_WITHIN, *(call.next_at for call in self.hosted.values()))

    # -- stacks: one is asked for at a time, because the answer does not say whose it is ---------------------------------------------

    @property
    def awaits_stack(self) -> bool:
        return bool(self.stacks)

    def request_stack_of(self, call: HostCall, now: float) -> None:
        """By a signal, because the host has not reported a limit of this call. `stack_due` says until when it is waited for."""
        if call not in self.stacks:
            self.stacks.append(call)
            if len(self.stacks) == 1:
                self._request_next(now)

    def ask_stack(self, answer: Callable[[str], None], until: float, now: float) -> bool:
        """Of each thread that runs calls, one after the other; of the coroutines, where their loop is. Of calls without a time limit the
        host does not say in which thread they are."""
        threads: dict[int, list[HostCall]] = {}
        for call in self.hosted.values():
            if thread := self.thread_of(call):
                threads.setdefault(thread, []).append(call)
        if not threads:
            return False
        self.requests.append(StackRequest({calls[0]: ", ".join(call.job.title for call in calls) for calls in threads.values()}, answer))
        for calls in threads.values():
            self.request_stack_of(calls[0], now)
        return True

    def came(self, call: HostCall, stack: str) -> list[StackRequest]:
        """The requests that this stack completes."""
        over = [request for request in self.requests if request.came(call, stack)]
        self.requests = [request for request in self.requests if request not in over]
        return over

    def next_stack(self, now: float) -> tuple[HostCall, str]:
        """Whose stack has come, or has been waited for long enough; the next one is asked for."""
        call, stack = self.stacks.popleft(), self.take_stack()
        self._request_next(now)
        return call, stack

    def leave_stacks(self, call: HostCall, now: float) -> str:
        """The call has ended: what there is of its stack, for which nobody waits any more."""
        if self.stacks[0] is call:
            return self.next_stack(now)[1]
        self.stacks.remove(call)
        return ""

    def _request_next(self, now: float) -> None:
        """A pidfd reaches a process's first thread only, so the signal goes by number; the keeper reaps the process after its report, so
        until that report the number is nobody else's."""
        self.stack_due = now + STACK_WAIT if self.stacks else inf
        if self.stacks:
            self.forget_stack()
            if (thread := self.thread_of(self.stacks[0])) and not self.died_at:
                signal_thread(self.pid, thread, FORCED_STACK_SIGNAL)

    # -- draining ------------------------------------------------------------------------------------------------------------------

    def begin_drain(self, now: float) -> bool:
        """True the first time."""
        if self.draining:
            return False
        self.draining, self._ping_at = True, now
        return True

    @property
    def done_draining(self) -> bool:
        """Nothing runs here that is worth waiting for."""
        innocent = [call for call in self.hosted.values() if not call.over]
        stands_still = self.blocked and len(innocent) < len(self.hosted) and all(call.job.coroutine for call in innocent)
        return self.draining and self.life.state is State.IDLE and (not innocent or stands_still)

    def ping(self, now: float) -> int:
        """The number of a ping that is due, else 0."""
        if now >= self._pinged_at + PONG_WITHIN:
            self.blocked, self._pinged_at, self._ping_at = True, inf, now
        if now < self._ping_at:
            return 0
        self._ping += 1
        self._ping_at, self._pinged_at = inf, now
        return self._ping

    def pong(self, number: int, now: float) -> None:
        if number == self._ping:
            self.blocked, self._pinged_at, self._ping_at = False, inf, now + PING_EVERY

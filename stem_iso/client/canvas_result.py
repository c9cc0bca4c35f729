"""Client-side handle of a canvas: the result, the members as they come, the end of the whole, a drawing of how it stands.

    chain(...).enqueue() ──> CanvasHandle     as the handle of its last task; `revoke` and `forget` mean all of it
    group(...).enqueue() ──> GroupHandle      results in order, or as they come

A canvas has the id of the part whose outcome is its own; `app.canvas(id)` finds it again in any process.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from stem_iso.client.result import TaskHandle, in_thread, refuse_waiting
from stem_iso.errors import BrokerUnavailable, UnknownResult, let_out
from stem_iso.outcome import TERMINAL, TaskState, TaskStatus
from stem_iso.task.canvas import drawing
from stem_iso.task.canvas.tree import Parallel, Tree, last_of, parts_of
from stem_iso.validation import Duration, delay

if TYPE_CHECKING:
    from stem_iso.brokers.base import MemberState, StatusRecord
    from stem_iso.client.application import Application

R = TypeVar("R")
AGAIN = 0.2  # seconds until a broker that is away is asked again
SLICE = 1.0  # seconds of waiting after which a coroutine looks up whether it is still wanted


class GroupProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How many members have ended, and how. `waiting`: neither begun nor ended. Those that have expired are in `total` alone."""

    total: int
    succeeded: int
    failed: int
    cancelled: int
    running: int
    waiting: int

    @property
    def ended(self) -> int:
        return self.succeeded + self.failed + self.cancelled


class CanvasHandle(TaskHandle[R]):
    """A whole canvas. `id` is that of the part whose outcome is its own: the last link, or the group."""

    def __init__(self, app: Application, tree: Tree, queue: str | None = None) -> None:
        super().__init__(app, last_of(tree).id, queue)
        self.tree = tree

    def draw(self) -> str:
        """The graph as text, each part with its state."""
        return drawing.text(self.tree, self.states())

    def mermaid(self) -> str:
        """The graph as a Mermaid flowchart, coloured by state."""
        return drawing.mermaid(self.tree, {record.id: record.state.value for record in self._records()})

    def states(self) -> dict[str, str]:
        """How each part stands, by id: its reason where it has one, else its state. What has expired is left out."""
        return {record.id: record.reason or record.state.value for record in self._records()}

    def _records(self) -> list[StatusRecord]:
        with self.app.broker_pool.borrow() as broker:
            return [record for record in broker.status([ref.id for ref in parts_of(self.tree)]) if record is not None]


class GroupHandle(CanvasHandle[list[R]]):
    """Several side by side."""

    @property
    def members(self) -> list[TaskHandle[R]]:
        """A handle for each, in their order. `revoke` of one means that member alone."""
        group = last_of(self.tree)
        return [_part_handle(self.app, member) for member in group.members] if isinstance(group, Parallel) else []

    def results(self, timeout: Duration | None = None) -> list[R]:
        """The results of the members, in their order, once all have succeeded.

        Raises TaskFailed as soon as one has failed (the message names it), TaskCancelled, TimeoutError, UnknownResult (also where the
        result of a member has expired), and WaitRefused inside a handler.
        """
        return self.result(timeout)

    def as_completed(self, timeout: Duration | None = None) -> Iterator[R]:
        """The results of the members as they come; of one that failed, TaskFailed is raised in its place, and the next may be asked for.

        Raises TimeoutError when `timeout` seconds have passed since the first was asked for, WaitRefused inside a handler.
        """
        refuse_waiting()
        return _AsCompleted(self, None if timeout is None else delay("timeout", timeout))

    def progress(self) -> GroupProgress:
        """Raises UnknownResult."""
        with self.app.broker_pool.borrow() as broker:
            return _progress(self.id, broker.members(self.id), len(self.members))

    def _value(self, status: TaskStatus) -> list[R]:
        members = self.members
        with self.app.broker_pool.borrow() as broker:
            records = broker.status([member.id for member in members])
        if None in records and status.result is not None:
            return cast("list[R]", status.result)  # a member has expired before its group: plain data, of no annotated type
        found: list[Any] = []
        for member, record in zip(members, records, strict=True):
            if record is None:
                raise UnknownResult(f"the result of member {member.id} has expired")
            found.append(member.result(0) if isinstance(member, GroupHandle) else member.result_of(record))
        return found

    async def aresult(self, timeout: Duration | None = None) -> list[R]:
        record = await self.ended(timeout)
        return await in_thread(lambda: self.result_of(record))  # it asks the broker for each

    async def aresults(self, timeout: Duration | None = None) -> list[R]:
        """As `results`."""
        return await self.aresult(timeout)

    async def aprogress(self) -> GroupProgress:
        return await in_thread(self.progress)

    async def aas_completed(self, timeout: Duration | None = None) -> AsyncIterator[R]:
        """As `as_completed`; a failure ends it."""
        refuse_waiting()
        completed = _AsCompleted(self, None if timeout is None else delay("timeout", timeout))
        while await in_thread(completed.poll):
            if completed.found:
                yield await in_thread(completed.take)


class _AsCompleted(Iterator[R]):
    """Owned by whoever iterates."""

    def __init__(self, group: GroupHandle[R], timeout: float | None) -> None:
        self._group, self._timeout = group, timeout
        self._deadline: float | None = None  # from the first look on
        self._reached = False  # a broker that was never reached is said at once; one that goes away later is waited for
        self._away: BrokerUnavailable | None = None
        self._left = {member.id: member for member in group.members}
        self.found: deque[TaskHandle[R]] = deque()

    def __next__(self) -> R:
        while self.poll():
            if self.found:
                return self.take()
        raise StopIteration

    def take(self) -> R:
        """The result of the next that was found, or its failure."""
        while True:
            member = self.found.popleft()
            try:
                return member.result(0)
            except BrokerUnavailable as error:
                self.found.appendleft(member)
                self._wait_for_it(error)
            except StopIteration as error:  # a class that the result is converted to is user code
                raise let_out(error) from error

    def _wait_for_it(self, error: BrokerUnavailable) -> None:
        """For a moment. Raises it where the broker was never there, and TimeoutError."""
        if not self._reached:
            raise error
        self._away = error
        self._check_time()
        time.sleep(AGAIN if self._deadline is None else max(0.0, min(AGAIN, self._deadline - time.monotonic())))

    def _check_time(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            left_of = f"{len(self._left) + len(self.found)} of {len(self._group.members)} members of group {self._group.id}"
            away = f"; the broker cannot be reached: {self._away}" if self._away else ""
            raise TimeoutError(f"{left_of} have not ended after {self._timeout:g} s of waiting{away}") from self._away

    def poll(self) -> bool:
        """Wait for a moment until one has ended; False when each was returned. Raises TimeoutError, UnknownResult."""
        if self.found or not self._left:
            return bool(self.found)
        if self._deadline is None and self._timeout is not None:
            self._deadline = time.monotonic() + self._timeout
        left = 0.0 if not self._reached else SLICE if self._deadline is None else min(SLICE, self._deadline - time.monotonic())
        try:
            with self._group.app.broker_pool.borrow() as broker:
                states = broker.wait_members(self._group.id, len(self._left), max(0.0, left))
        except BrokerUnavailable as error:
            self._wait_for_it(error)
            return True
        except TimeoutError:
            self._reached, self._away = True, None
            self._check_time()
            return True
        self._reached, self._away = True, None
        alive = {each.id for each in states if each.state not in TERMINAL}
        for id in [id for id in self._left if id not in alive]:  # one that is not listed has expired, which its result will say
            self.found.append(self._left.pop(id))
        return True


def composed(app: Application, tree: Tree) -> CanvasHandle[Any]:
    """The handle of a whole canvas."""
    last = last_of(tree)
    return GroupHandle(app, tree) if isinstance(last, Parallel) else CanvasHandle(app, tree, last.queue)


def _part_handle(app: Application, tree: Tree) -> TaskHandle[Any]:
    last = last_of(tree)
    return GroupHandle(app, tree) if isinstance(last, Parallel) else TaskHandle(app, last.id, last.queue)


def find(app: Application, id: str) -> CanvasHandle[Any]:
    """Raises UnknownResult."""
    with app.broker_pool.borrow() as broker:
        tree = broker.tree(id)
    if tree is None:
        raise UnknownResult(f"no canvas has the id {id!r}: it was never enqueued, has expired, or is a single task")
    return composed(app, tree)


def _progress(id: str, members: list[MemberState] | None, total: int) -> GroupProgress:
    if members is None:
        raise UnknownResult(f"no group has the id {id!r}: it was never enqueued, or it has expired")
    states = [member.state for member in members]
    counts = {state: states.count(state) for state in TaskState}
    return GroupProgress(
        total=total,
        succeeded=counts[TaskState.SUCCEEDED],
        failed=counts[TaskState.FAILED],
        cancelled=counts[TaskState.CANCELLED],
        running=counts[TaskState.RUNNING],
        waiting=counts[TaskState.QUEUED] + counts[TaskState.RETRIED],
    )

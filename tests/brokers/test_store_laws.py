"""The store against a simple model, under any order of calls.

The model knows each task's state, run, attempt, holder and lock, and nothing of SQL. After every step the counts, the states, the dead
letters and the orders of the store are compared with it; a receipt that the model calls stale must change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stem_iso.brokers.base import BrokerOptions, DeadFilter, Delivery, Receipt, Settlement, Verdict
from stem_iso.brokers.operations import LISTED_STATES, TaskCounts, TaskFilter
from stem_iso.outcome import TaskState
from stem_iso.task.envelope import Envelope, decode
from stem_iso.task.settlement import Finish, GiveBack, Retry
from stem_iso.testing.contract.steps import ALL, ERROR, RESULT, envelope
from tests.brokers.stores import HandClock, in_memory

LOCKS = (None, "k1", "k2")
BOOTS = ("alpha", "beta")
QUEUES = ("a", "b")
PLANS = ("success", "failure", "cancel", "retry", "retry later", "give back", "give back later")
MAX_REDELIVERIES = 2
LEASE = 10.0


@dataclass
class Task:
    envelope: Envelope
    state: TaskState = TaskState.QUEUED
    due: float = 0.0
    holder: Receipt | None = None
    lease_end: float = 0.0
    redeliveries: int = 0
    revoked: bool = False
    marked: bool = False
    reason: str | None = None
    former: list[Receipt] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        return self.state in (TaskState.QUEUED, TaskState.RETRIED)

    def wait(self, due: float) -> None:
        self.state = TaskState.RETRIED if self.envelope.attempt else TaskState.QUEUED
        self.due, self.marked = due, False
        self.let_go()

    def end(self, state: TaskState, reason: str | None) -> None:
        self.state, self.reason = state, reason
        self.let_go()

    def let_go(self) -> None:
        if self.holder:
            self.former.append(self.holder)
        self.holder = None


class Store(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.broker = in_memory(self.clock, BrokerOptions(max_redeliveries=MAX_REDELIVERIES, default_visibility_timeout=LEASE))
        self.tasks: dict[str, Task] = {}
        self.locks: dict[str, str] = {}
        self.dead: set[str] = set()
        self.new = 0  # tasks that ever came
        # Of ids. Those of `envelope` count on over all examples: what is sorted by them would stand in another order in each.
        self.numbers = count(1)

    # -- producers --------------------------------------------------------------------------------------------------------------

    @rule(queue=st.sampled_from(QUEUES), lock=st.sampled_from(LOCKS), delay=st.sampled_from([0, 0, 5]), priority=st.sampled_from([0, 9]))
    def publish(self, queue: str, lock: str | None, delay: float, priority: int) -> None:
        due = self.clock.wall + delay if delay else None
        sent = envelope(id=f"task-{next(self.numbers)}", queue=queue, lock=lock, not_before=due, priority=priority)
        expected = self.locks.get(lock, sent.id) if lock else sent.id
        assert self.broker.publish([sent]) == [expected]
        if expected == sent.id:
            self.new += 1
            self.tasks[sent.id] = Task(sent, due=due or 0.0)
            if lock:
                self.locks[lock] = sent.id

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def publish_again(self, data: st.DataObject) -> None:
        task = self.tasks[data.draw(st.sampled_from(sorted(self.tasks)))]
        assert self.broker.publish([task.envelope]) == [task.envelope.id]

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), terminate=st.booleans())
    def revoke(self, data: st.DataObject, terminate: bool) -> None:
        id = data.draw(st.sampled_from(sorted(self.tasks)))
        task = self.tasks[id]
        assert self.broker.revoke(id, terminate) is not task.state.terminal
        if task.waits:
            self.ended(task, TaskState.CANCELLED, "revoked")
        elif task.holder:
            task.revoked = True

    @rule(queue=st.sampled_from(QUEUES))
    def purge(self, queue: str) -> None:
        waiting = [task for task in self.tasks.values() if task.waits and task.envelope.queue == queue]
        assert self.broker.purge(queue) == len(waiting)
        for task in waiting:
            self.ended(task, TaskState.CANCELLED, "purged")

    @precondition(lambda self: self.dead)
    @rule(data=st.data(), dry_run=st.booleans())
    def replay(self, data: st.DataObject, dry_run: bool) -> None:
        id = data.draw(st.sampled_from(sorted(self.dead)))
        (answer,) = self.broker.replay(DeadFilter(ids=[id]), dry_run=dry_run)
        task = self.tasks[id]
        lock = task.envelope.lock
        if lock and lock in self.locks:
            assert answer.refused == "unique"
            return
        assert (answer.refused, answer.run) == (None, task.envelope.run + 1)
        if not dry_run:
            self.put_in_line_anew(task, task.envelope.args)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.tasks)))
        task = self.tasks[id]
        answer = self.broker.retry(id)
        assert answer is not None
        if not task.state.terminal or task.state is TaskState.SUCCEEDED:
            assert answer.refused == ("succeeded" if task.state.terminal else "active")
        elif task.envelope.lock and task.envelope.lock in self.locks:
            assert answer.refused == "unique"
        else:
            assert (answer.refused, answer.run) == (None, task.envelope.run + 1)
            self.put_in_line_anew(task, task.envelope.args)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def run_now(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.tasks)))
        task = self.tasks[id]
        answer = self.broker.run_now(id)
        assert answer is not None and answer.run == task.envelope.run
        if task.waits and task.due > self.clock.wall:
            assert answer.refused is None
            task.envelope = msgspec.structs.replace(task.envelope, not_before=self.clock.wall)
            task.due = self.clock.wall
        else:
            assert answer.refused == "not-delayed"

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), number=st.integers(0, 9), ago=st.sampled_from([0, 0, 0, 1]))
    def edit(self, data: st.DataObject, number: int, ago: int) -> None:
        id = data.draw(st.sampled_from(sorted(self.tasks)))
        task = self.tasks[id]
        args = msgspec.Raw(msgspec.msgpack.encode({"n": number}))
        answer = self.broker.edit(id, task.envelope.run - ago, bytes(args))
        assert answer is not None
        if task.holder:
            assert answer.refused == "running"
        elif ago:
            assert answer.refused == "changed"
        elif task.state is TaskState.SUCCEEDED:
            assert answer.refused == "succeeded"
        elif task.state.terminal and task.envelope.lock and task.envelope.lock in self.locks:
            assert answer.refused == "unique"
        else:
            assert (answer.refused, answer.run) == (None, task.envelope.run + 1)
            if task.state.terminal:
                self.put_in_line_anew(task, args)
            else:
                task.envelope = msgspec.structs.replace(task.envelope, args=args, run=answer.run, attempt=0)
                task.redeliveries, task.state = 0, TaskState.QUEUED

    def put_in_line_anew(self, task: Task, args: msgspec.Raw) -> None:
        self.dead.discard(task.envelope.id)
        task.envelope = msgspec.structs.replace(task.envelope, args=args, run=task.envelope.run + 1, attempt=0, not_before=self.clock.wall)
        task.redeliveries, task.revoked, task.reason = 0, False, None
        task.wait(self.clock.wall)
        if task.envelope.lock:
            self.locks[task.envelope.lock] = task.envelope.id

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.tasks)))
        if self.tasks[id].state is TaskState.SUCCEEDED:  # what has failed could still be replayed, as a task that is new
            assert self.broker.forget(id)
            del self.tasks[id]

    # -- workers ----------------------------------------------------------------------------------------------------------------

    @rule(boot=st.sampled_from(BOOTS), queues=st.sampled_from([("a",), ("a", "b"), ("b",)]), want=st.integers(0, 3))
    def lease(self, boot: str, queues: tuple[str, ...], want: int) -> None:
        ready = [task for task in self.tasks.values() if task.waits and task.due <= self.clock.wall and task.envelope.queue in queues]
        exchange = self.broker.exchange(boot, [], queues, want)
        assert len(exchange.deliveries) == min(want, len(ready))
        assert exchange.ready is (len(ready) > want)
        best = sorted((task.envelope.priority for task in ready), reverse=True)[:want]
        assert [self.tasks[one.receipt.id].envelope.priority for one in exchange.deliveries] == best
        for delivery in exchange.deliveries:
            self.leased(delivery)

    def leased(self, delivery: Delivery) -> None:
        task = self.tasks[delivery.receipt.id]
        assert task.waits and task.due <= self.clock.wall
        found = decode(delivery.body)
        assert msgspec.structs.replace(found, attempts=()) == msgspec.structs.replace(task.envelope, attempts=())
        before = [(each.run, each.attempt) for each in found.attempts]
        assert before == sorted(set(before)) and all(run < found.run for run, _ in before)
        assert delivery.redeliveries == task.redeliveries
        assert delivery.receipt not in task.former
        task.state, task.holder, task.lease_end = TaskState.RUNNING, delivery.receipt, self.clock.lease + LEASE

    @precondition(lambda self: any(task.holder or task.former for task in self.tasks.values()))
    @rule(data=st.data(), kind=st.sampled_from(PLANS))
    def settle(self, data: st.DataObject, kind: str) -> None:
        receipt = data.draw(st.sampled_from(self.receipts()))
        task = self.tasks[receipt.id]
        plan = self.plan(task.envelope, kind)
        (verdict,) = self.broker.exchange(receipt.boot, [Settlement(receipt, plan)], [], 0).verdicts
        if receipt != task.holder:
            assert verdict is Verdict.LOST
        elif task.revoked and kind not in ("success", "cancel"):
            assert verdict is Verdict.CANCELLED
            self.ended(task, TaskState.CANCELLED, "revoked")
        else:
            assert verdict is Verdict.DONE
            self.settled(task, plan)

    def settled(self, task: Task, plan: Finish | Retry | GiveBack) -> None:
        match plan:
            case Finish(state, reason):
                self.ended(task, state, reason)
            case Retry(successor):
                task.envelope = successor
                task.wait(successor.not_before or 0.0)
            case GiveBack(delay):
                task.wait(self.clock.wall + delay if delay else 0.0)

    @precondition(lambda self: any(task.holder or task.former for task in self.tasks.values()))
    @rule(data=st.data(), what=st.sampled_from(["renew", "extend", "mark"]))
    def hold(self, data: st.DataObject, what: str) -> None:
        receipt = data.draw(st.sampled_from(self.receipts()))
        task = self.tasks[receipt.id]
        mine = receipt == task.holder
        if what == "renew":
            assert self.broker.renew([receipt]) == ([] if mine else [receipt])
            task.lease_end = max(task.lease_end, self.clock.lease + LEASE) if mine else task.lease_end
        elif what == "extend":
            assert self.broker.extend(receipt, 25.0) is mine
            task.lease_end = max(task.lease_end, self.clock.lease + 25.0) if mine else task.lease_end
        else:
            assert self.broker.mark(receipt) is mine
            task.marked = task.marked or mine

    @rule(boot=st.sampled_from(BOOTS), predecessor=st.sampled_from([None, None, *BOOTS]))
    def reclaim(self, boot: str, predecessor: str | None) -> None:
        expected = {
            id
            for id, task in self.tasks.items()
            if task.holder and task.holder.boot != boot and (task.lease_end <= self.clock.lease or task.holder.boot == predecessor)
        }
        found = self.broker.reclaim(boot, predecessor)
        assert sorted(one.id for one in found) == sorted(expected)
        for id in expected:
            self.reclaimed(self.tasks[id])
        for one in found:
            state = self.tasks[one.id].state
            assert one.state is (state if state.terminal else TaskState.QUEUED)

    def reclaimed(self, task: Task) -> None:
        if task.revoked:
            self.ended(task, TaskState.CANCELLED, "revoked")
        elif task.marked:
            self.ended(task, TaskState.FAILED, "worker-lost")
        elif task.redeliveries >= MAX_REDELIVERIES:
            self.ended(task, TaskState.FAILED, "redelivery-limit")
        else:
            task.redeliveries += 1
            task.wait(0.0)

    @rule(seconds=st.sampled_from([1.0, 6.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.pass_by(seconds)

    @rule()
    def the_wall_clock_is_stepped(self) -> None:
        self.clock.wall += 50  # leases must not notice

    @rule()
    def sweep(self) -> None:
        self.broker.sweep()

    # -- the model's own --------------------------------------------------------------------------------------------------------

    def receipts(self) -> list[Receipt]:
        return [one for task in self.tasks.values() for one in (*task.former, *([task.holder] if task.holder else []))]

    def plan(self, of: Envelope, kind: str) -> Finish | Retry | GiveBack:
        later = self.clock.wall + 5 if kind.endswith("later") else None
        if kind.startswith("give"):
            return GiveBack(5.0 if later else 0.0)
        if kind.startswith("retry"):
            return Retry(msgspec.structs.replace(of, attempt=of.attempt + 1, not_before=later), "why", ERROR)
        states = {"success": TaskState.SUCCEEDED, "failure": TaskState.FAILED, "cancel": TaskState.CANCELLED}
        return Finish(states[kind], None if kind == "success" else kind, RESULT if kind == "success" else None, ttl=1e6)

    def ended(self, task: Task, state: TaskState, reason: str | None) -> None:
        task.end(state, reason)
        if state is TaskState.FAILED:
            self.dead.add(task.envelope.id)
        if task.envelope.lock and self.locks.get(task.envelope.lock) == task.envelope.id:
            del self.locks[task.envelope.lock]

    # -- laws -------------------------------------------------------------------------------------------------------------------

    @invariant()
    def the_states_agree(self) -> None:
        ids = list(self.tasks)
        for id, found in zip(ids, self.broker.status(ids), strict=True):
            task = self.tasks[id]
            assert found is not None
            assert (found.state, found.run, found.attempt) == (task.state, task.envelope.run, task.envelope.attempt)
            assert found.redeliveries == task.redeliveries
            if task.state.terminal:
                assert found.reason == task.reason

    @invariant()
    def the_counts_add_up(self) -> None:
        found = {one.name: (one.queued, one.delayed, one.running, one.dead) for one in self.broker.queues()}
        for queue in QUEUES:
            mine = [task for task in self.tasks.values() if task.envelope.queue == queue]
            waiting = [task for task in mine if task.waits]
            delayed = sum(task.due > self.clock.wall for task in waiting)
            dead = sum(task.envelope.id in self.dead for task in mine)
            expected = (len(waiting) - delayed, delayed, sum(task.holder is not None for task in mine), dead)
            assert found.get(queue, (0, 0, 0, 0)) == expected

    @invariant()
    def the_list_has_them_in_the_order_in_which_they_came(self) -> None:
        for newest_first in (False, True):
            known = list(self.tasks)[:: -1 if newest_first else 1]
            for states in (None, *LISTED_STATES):
                which = TaskFilter(states=None if states is None else [states])
                met, after = [], None
                for _ in range(100):
                    page = self.broker.list_tasks(which, 3, after, newest_first)
                    met += [each.record.id for each in page.tasks]
                    after = page.next
                    if after is None:
                        break
                assert met == [id for id in known if states is None or states in self.listed_by(self.tasks[id])]

    def listed_by(self, task: Task) -> set[str]:
        if not task.waits:
            return {task.state.value}
        return {"delayed" if task.due > self.clock.wall else "queued"} | ({"retried"} if task.envelope.attempt else set())

    @invariant()
    def each_was_counted_once_as_it_came(self) -> None:
        assert sum(each.counts.get("enqueued", 0) for each in self.broker.counts(0, 1 << 40)) == self.new

    @rule()
    def workers_count(self) -> None:
        self.broker.add_counts([TaskCounts(queue="a", name="of another", minute=1)])

    @invariant()
    def one_dead_letter_for_each_failed_task(self) -> None:
        assert {letter.id for letter in self.broker.dead_letters(ALL)} == self.dead
        assert {id for id, task in self.tasks.items() if task.state is TaskState.FAILED} == self.dead

    @invariant()
    def the_holders_of_revoked_runs_get_the_order(self) -> None:
        for boot in BOOTS:
            holders = {order.receipt for order in self.broker.revocations(boot)}
            assert holders == {task.holder for task in self.tasks.values() if task.holder and task.revoked and task.holder.boot == boot}


TestStoreLaws = Store.TestCase
TestStoreLaws.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)

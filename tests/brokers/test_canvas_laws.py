"""Canvases in the store, under any order of calls, against the oracle that walks the tree.

Workers lease, end, retry, give back, and vanish with what they hold; producers revoke, forget, purge and replay; time passes and storage is
swept. Then everything that is left is run to its end. What each task found before it, how each part ended and whom its error names must be
what the oracle says, and after the last TTL nothing is stored.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Protocol

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from stem_iso.brokers.base import Broker, BrokerOptions, DeadFilter, Delivery, MemberState, Reclaimed, Settlement, StatusRecord, Verdict
from stem_iso.brokers.redis.driver import scripts
from stem_iso.brokers.sqlite.broker import SqliteBroker
from stem_iso.brokers.url import open_broker
from stem_iso.outcome import TaskState
from stem_iso.task.canvas.tree import Canvas, Tree, group_of, last_of, lay, leaves, parts_of
from stem_iso.task.envelope import Envelope, decode
from stem_iso.task.settlement import Finish, GiveBack, Plan, Retry
from stem_iso.testing.contract.steps import ALL, ERROR, FAILURE, envelope
from tests.brokers.stores import HandClock, in_memory
from tests.task.canvases import Expected, agrees, groups_in, judge, named_by, trees

QUEUES = ("a", "b")
HOURS = "hours ahead"
ERRORS = ("errors",)  # purged never, so what a purge moves is not purged by it
LEASE = 10.0
OPTIONS = BrokerOptions(max_redeliveries=2, default_visibility_timeout=LEASE)
DAY = 86_400.0
PLANS = ("success", "success", "success", "failure", "expired", "retry", "retry later", "give back")


class Passing(Protocol):
    """Time that a test lets pass."""

    @property
    def wall(self) -> float: ...

    def pass_by(self, seconds: float) -> None: ...


class Stored(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock, self.broker = self.opened()
        self.trees: list[Tree] = []
        self.fates: dict[str, TaskState] = {}
        self.found: dict[str, bytes | None] = {}  # what each task found before it
        self.held: list[Delivery] = []
        self.alone: set[str] = set()  # replayed: no part of its canvas any more
        self.forgotten: set[str] = set()
        self.boots = 1
        self.canvases: list[Canvas] = []
        self.expiring = False  # days have passed: any status may be gone

    def opened(self) -> tuple[Passing, Broker]:
        clock = HandClock()
        return clock, in_memory(clock, OPTIONS)

    def assert_empty(self) -> None:
        kept = "SELECT id, reason FROM task UNION ALL SELECT id, reason FROM dead UNION ALL SELECT id, reason FROM apart"
        assert isinstance(self.broker, SqliteBroker)
        assert self.broker._database.read(lambda turn: turn.all(kept)) == []

    @initialize(
        first=trees(QUEUES, "x", ERRORS),
        second=trees(QUEUES, "y", ERRORS),
        most=st.sampled_from([12, 1 << 20]),
        ttl=st.sampled_from([DAY, 5.0, 0.0]),
        marked=st.booleans(),
    )
    def compose(self, first: Tree, second: Tree, most: int, ttl: float, marked: bool) -> None:
        self.trees, self.most, self.ttl, self.marked = [first, second], most, ttl, marked
        for tree in self.trees:
            self.canvases.append(lay(tree, [self.sent(leaf.id, leaf.queue) for leaf in leaves(tree)], most))
            self.broker.compose(self.canvases[-1])

    def sent(self, id: str, queue: str) -> Envelope:
        return envelope(id=id, name="step", queue=queue, result_ttl=self.ttl, starts_in=4.0 if id.endswith("4") else None)

    # -- workers ----------------------------------------------------------------------------------------------------------------

    @property
    def boot(self) -> str:
        return f"boot {self.boots}"

    @rule(queues=st.sampled_from([(*QUEUES, *ERRORS), ("a", *ERRORS), ("b",)]), want=st.integers(1, 4))
    def lease(self, queues: tuple[str, ...], want: int) -> None:
        for delivery in self.broker.exchange(self.boot, [], queues, want).deliveries:
            envelope = decode(delivery.body)
            if envelope.run == 0:
                assert envelope.id not in self.fates, "it had ended"
                assert self.found.setdefault(envelope.id, envelope.previous) == envelope.previous
            if self.marked:
                assert self.broker.mark(delivery.receipt)
            self.held.append(delivery)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), many=st.integers(1, 4))
    def settle(self, data: st.DataObject, many: int) -> None:
        """Several in one exchange; some by those who do not know that they have lost it."""
        chosen = data.draw(st.lists(st.sampled_from(range(len(self.held))), min_size=1, max_size=many, unique=True))
        self.settled([(self.held[index], data.draw(st.sampled_from(PLANS))) for index in chosen])

    def settled(self, endings: list[tuple[Delivery, str]]) -> None:
        settlements = [Settlement(delivery.receipt, self.plan(decode(delivery.body), kind)) for delivery, kind in endings]
        verdicts = self.broker.exchange(self.boot, settlements, [], 0).verdicts
        for (delivery, _), settlement, verdict in zip(endings, settlements, verdicts, strict=True):
            if verdict is Verdict.CANCELLED:
                self.ended(delivery.receipt.id, TaskState.CANCELLED)
            elif verdict is Verdict.DONE and isinstance(settlement.plan, Finish):
                self.ended(delivery.receipt.id, settlement.plan.state)

    def plan(self, of: Envelope, kind: str) -> Plan:
        match kind:
            case "success":
                return Finish(TaskState.SUCCEEDED, result=msgspec.msgpack.encode(of.id), ttl=self.ttl)
            case "failure":
                return msgspec.structs.replace(FAILURE, ttl=self.ttl)
            case "expired":
                return Finish(TaskState.CANCELLED, reason="expired", ttl=self.ttl)
            case "give back":
                return GiveBack()
        due = self.clock.wall + 5 if kind == "retry later" else None
        return Retry(msgspec.structs.replace(of, attempt=of.attempt + 1, not_before=due), "why", ERROR)

    def ended(self, id: str, state: TaskState) -> None:
        if id not in self.alone:
            assert id not in self.fates
            self.fates[id] = state

    @rule(crash=st.booleans())
    def reclaim(self, crash: bool) -> None:
        """By another boot: after a crash, all of its predecessor's; else what ran out."""
        before = self.boot
        self.boots += 1
        self.reclaimed(self.broker.reclaim(self.boot, before if crash else None))

    def reclaimed(self, found: list[Reclaimed]) -> None:
        for one in found:
            if one.state.terminal:
                self.ended(one.id, one.state)

    # -- producers --------------------------------------------------------------------------------------------------------------

    def meant_by(self, tree: Tree, id: str) -> list[str] | None:
        """The parts that an id means; None where nobody can know any more."""
        outcome = last_of(tree).id
        group = group_of(tree, id)
        if id != outcome and group is None:
            return [id]
        if self.broker.tree(outcome) is None or self.broker.status([id]) == [None]:
            return None
        return [ref.id for ref in parts_of(tree if id == outcome or group is None else group)]

    def one_of(self, data: st.DataObject) -> tuple[str, list[str]] | None:
        tree = data.draw(st.sampled_from(self.trees))
        id = data.draw(st.sampled_from([ref.id for ref in parts_of(tree)]))
        meant = self.meant_by(tree, id)
        return None if meant is None or id in self.alone else (id, [each for each in meant if each not in self.alone])

    def waiting(self, ids: list[str]) -> list[str]:
        found = self.broker.status(ids)
        return [one.id for one in found if one is not None and one.state in (TaskState.QUEUED, TaskState.RETRIED)]

    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        if (chosen := self.one_of(data)) is None:
            return
        id, meant = chosen
        waiting = self.waiting(meant)
        running = [one for one in self.broker.status(meant) if one is not None and one.state is TaskState.RUNNING]
        alone = self.broker.status(sorted(self.alone))
        assert self.broker.revoke(id) is bool(waiting or running)
        assert self.broker.status(sorted(self.alone)) == alone
        for each in waiting:
            self.ended(each, TaskState.CANCELLED)

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        if (chosen := self.one_of(data)) is not None:
            self.broker.forget(chosen[0])
            self.forgotten.update(chosen[1])

    @rule(queue=st.sampled_from(QUEUES))
    def purge(self, queue: str) -> None:
        queued = {leaf.id for tree in self.trees for leaf in leaves(tree) if leaf.queue == queue}
        records = [one for one in self.broker.status(sorted(queued)) if one is not None]
        waiting = [one.id for one in records if one.state in (TaskState.QUEUED, TaskState.RETRIED) and one.reason != "waiting"]
        assert self.broker.purge(queue) == len(waiting)
        for id in waiting:
            self.ended(id, TaskState.CANCELLED)

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        letters = self.broker.dead_letters(ALL)
        if letters:
            id = data.draw(st.sampled_from([letter.id for letter in letters]))
            (answer,) = self.broker.replay(DeadFilter(ids=[id]))
            assert answer.refused is None
            self.alone.add(id)

    @rule(data=st.data())
    def compose_again(self, data: st.DataObject) -> None:
        canvas = data.draw(st.sampled_from(self.canvases))
        ids = [step.envelope.id for step in canvas.steps if step.envelope.id not in self.alone] + [join.id for join in canvas.joins]
        known = self.broker.status(ids)
        if any(known):  # else it is gone, and as good as new
            self.broker.compose(canvas)
            assert self.broker.status(ids) == known

    @rule(seconds=st.sampled_from([1.0, 6.0, 12.0, 2 * DAY]))
    def time_passes(self, seconds: float) -> None:
        self.clock.pass_by(seconds)
        self.expiring = self.expiring or seconds > DAY

    @rule()
    def sweep(self) -> None:
        self.broker.sweep()

    # -- the end ----------------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        self.run_to_the_end()
        for tree in self.trees:
            self.compare(tree)
        self.clock.pass_by(40 * DAY)
        while self.broker.sweep():
            pass
        self.assert_empty()
        self.broker.close()

    def run_to_the_end(self) -> None:
        while any(one.queued or one.delayed or one.running for one in self.broker.queues()):
            self.boots += 1
            self.reclaimed(self.broker.reclaim(self.boot))
            self.held.clear()
            self.lease((*QUEUES, *ERRORS), 50)
            self.settled([(delivery, "success") for delivery in self.held])
            self.clock.pass_by(LEASE / 2)

    def compare(self, tree: Tree) -> None:
        ids = [ref.id for ref in parts_of(tree)]
        records = dict(zip(ids, self.broker.status(ids), strict=True))
        named = {id: name for id, record in records.items() if (name := named_by(record)) is not None}
        for id, expected in judge(tree, self.fates, named, self.most).items():
            if id in self.found:
                assert expected.state is not None, f"{id} ran, and nothing had failed"
                assert id not in self.fates or expected.before is None or agrees(expected.before, self.found[id])
            if id not in self.alone:
                self.compare_one(id, expected, records[id])
        for group in groups_in(tree):
            shown = [record for member in group.members if (record := records[last_of(member).id]) and record.id not in self.alone]
            found = self.broker.members(group.id)
            assert found == (None if records[group.id] is None else [MemberState(record.id, record.state) for record in shown])

    def compare_one(self, id: str, expected: Expected, record: StatusRecord | None) -> None:
        if expected.state is None or id in self.forgotten:
            assert record is None
        elif record is None:
            assert self.expiring or (self.ttl < DAY and "t" in id), f"{id} is not there"
        else:
            assert record.state is expected.state, f"{id} hangs" if not record.state.terminal else id
            assert not expected.by or named_by(record) in expected.by
            assert (None if record.result is None else msgspec.msgpack.decode(record.result)) == expected.result


TestStored = Stored.TestCase
TestStored.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


class StoredOnRedis(Stored):
    """The server's time is what its scripts add to it; the keys themselves expire by real time, so they may outlive what they say."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__()

    def opened(self) -> tuple[Passing, Broker]:
        return ServerClock(self.url), open_broker(self.url, OPTIONS)

    def assert_empty(self) -> None:
        with redis.Redis.from_url(self.url) as plain:
            plain.delete(HOURS)
            lasting = [key.decode() for key in plain.scan_iter(count=1000) if plain.ttl(key) == -1]
        assert not lasting, lasting


class ServerClock:
    """Scripts read what this writes; a new one begins on an empty database."""

    def __init__(self, url: str) -> None:
        self._url, self._ahead = url, 0.0
        with redis.Redis.from_url(url) as plain:
            plain.flushdb()

    @property
    def wall(self) -> float:
        return time.time() + self._ahead

    def pass_by(self, seconds: float) -> None:
        self._ahead += seconds
        with redis.Redis.from_url(self._url) as plain:
            plain.set(HOURS, repr(self._ahead))


@pytest.mark.slow
def test_stored_on_redis(redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(scripts.FOLDER, tmp_path / "scripts")
    shared = tmp_path / "scripts" / "common.lua"
    line = "local NOW = tonumber(time[1]) + tonumber(time[2]) / 1e6"
    assert line in shared.read_text()
    shared.write_text(shared.read_text().replace(line, f"{line} + tonumber(call('GET', '{HOURS}') or 0)"))
    monkeypatch.setattr(scripts, "FOLDER", tmp_path / "scripts")
    scripts.script.cache_clear()
    try:
        run_state_machine_as_test(lambda: StoredOnRedis(redis_url), settings=settings(TestStored.settings, max_examples=30))  # type: ignore[arg-type]
    finally:
        scripts.script.cache_clear()

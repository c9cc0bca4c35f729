"""Laws of commands and of the intake: nothing that is sent raises; a command is carried out once, and answered."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stem_iso.brokers.operations import Command, CommandReply, Pauses
from stem_iso.errors import BrokerUnavailable
from stem_iso.worker.commands import ACTIONS, CommandPoller, Drain, Order, RefusedOrder, Resize, order_of
from stem_iso.worker.intake import Intake

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


@given(st.sampled_from(ACTIONS) | st.text(), values, st.integers(1, 512))
def test_whatever_is_sent_is_an_order_or_is_refused_in_words(action: str, value: Any, most: int) -> None:
    order = order_of(action, value, most)
    if isinstance(order, RefusedOrder):
        assert order.why and len(order.why) < 1000
    if isinstance(order, Resize):
        assert 1 <= order.seats <= most


@given(st.integers(1, 512))
def test_a_number_that_was_typed_is_a_number(seats: int) -> None:
    assert order_of("concurrency", str(seats)) == order_of("concurrency", seats) == Resize(seats)


def test_a_drain_and_its_end_can_be_said_in_several_ways() -> None:
    assert {order_of("drain", value) for value in (None, True, "on", "ON")} == {Drain(True)}
    assert {order_of("drain", value) for value in (False, "off")} | {order_of("resume", None)} == {Drain(False)}


class Store:
    """What a broker keeps of commands. Before each request it may be told to fail: with nothing done, or after it was done."""

    def __init__(self) -> None:
        self.sent: list[Command] = []
        self.answers: dict[str, list[CommandReply]] = {}
        self.faults: list[str] = []

    def _fault(self, when: str) -> None:
        if self.faults and self.faults[0] == when:
            self.faults.pop(0)
            raise BrokerUnavailable(when)

    def commands(self, worker_id: str, started_at: float) -> list[Command]:
        self._fault("before")
        return [command for command in self.sent if command.id not in self.answers]

    def reply(self, command_id: str, reply: CommandReply) -> None:
        self._fault("before")
        self.answers.setdefault(command_id, []).append(reply)
        self._fault("after")


steps = st.lists(st.sampled_from(["send", "send later", "answer", "before", "after", "look", "look"]), max_size=30)


@given(steps)
def test_a_command_is_carried_out_once_and_answered(steps: list[str]) -> None:
    store: Any = Store()
    done: list[str] = []
    owed: list[str] = []  # those that the engine is to answer

    def carry_out(order: Order, command_id: str, broker: Any) -> CommandReply | None:
        done.append(command_id)
        if isinstance(order, RefusedOrder):
            return CommandReply(worker_id="w", done=False, text=order.why)
        owed.append(command_id)
        return None

    poller = CommandPoller("w", 0.0, 512, carry_out)
    for number, step in enumerate([*steps, "answer", "look", "answer", "look", "look", "look"]):
        match step:
            case "send" | "send later":
                store.sent.append(Command(id=str(number), worker_id="w", action="nonsense" if step == "send" else "stop"))
            case "answer":
                for command_id in owed:
                    poller.answered(command_id, CommandReply(worker_id="w"))
                owed.clear()
            case "look":
                if number >= len(steps):
                    store.faults.clear()
                with contextlib.suppress(BrokerUnavailable):
                    poller.run(store, float(number))
            case fault:
                store.faults.append(fault)
    ids = [command.id for command in store.sent]
    assert sorted(done) == sorted(ids)
    assert set(store.answers) == set(ids)


changes = st.one_of(
    st.tuples(st.just("pause"), st.builds(Pauses, st.frozensets(st.sampled_from("abcd")), st.frozensets(st.sampled_from("xy")))),
    st.tuples(st.just("drain"), st.booleans()),
    st.tuples(st.just("resize"), st.integers(1, 5)),
)


@given(st.lists(changes))
def test_the_intake_takes_what_is_neither_paused_nor_drained_and_says_each_change(changes: list[tuple[str, Any]]) -> None:
    intake, told = Intake(("a", "b", "c"), 2), []
    intake.changed = lambda: told.append((intake.paused, intake.draining, intake.seats))
    before = (Pauses(), False, 2)
    for change, value in changes:
        count = len(told)
        getattr(intake, change)(value)
        now = (intake.paused, intake.draining, intake.seats)
        assert told[count:] == ([now] if now != before else [])
        before = now
        assert intake.queues == tuple(queue for queue in "abc" if queue not in intake.paused.queues)
        assert intake.open == any(intake.takes_from(queue) for queue in "abc")
        assert all(intake.takes(queue, "z") == intake.takes_from(queue) for queue in "abc")
        assert not any(intake.takes(queue, name) for queue in "abc" for name in intake.paused.tasks)

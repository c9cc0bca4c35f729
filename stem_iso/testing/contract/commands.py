"""Commands to workers and their replies, and the list of who did what."""

from __future__ import annotations

import time

from stem_iso.brokers.base import Broker
from stem_iso.brokers.operations import MOST_ACTIONS, Action, Command, CommandReply
from stem_iso.testing.contract.delays import quiet, wakes
from stem_iso.testing.contract.steps import Steps, take


def command(id: str, worker_id: str = "*", action: str = "drain", value: object = None) -> Command:
    return Command(id=id, worker_id=worker_id, action=action, value=value, at=time.time())


def names(broker: Broker, worker_id: str, started_at: float = 0.0) -> list[str]:
    return [each.id for each in broker.commands(worker_id, started_at)]


class CommandRules(Steps):
    def test_a_worker_is_given_what_is_for_it_or_for_all_oldest_first(self, broker: Broker, other: Broker) -> None:
        assert names(broker, "host:1") == []
        for id, worker_id in (("c", "host:1"), ("b", "*"), ("a", "host:2"), ("d", "host:1")):
            broker.send_command(command(id, worker_id))
        assert names(other, "host:1") == ["c", "b", "d"]
        assert names(other, "host:2") == ["b", "a"]
        assert names(other, "ä b") == ["b"]

    def test_it_comes_as_it_was_sent(self, broker: Broker, other: Broker) -> None:
        sent = command("one", "host:1", "concurrency", {"seats": 8, "names": ["ä", None, 1.5]})
        broker.send_command(sent)
        assert other.commands("host:1", 0.0) == [sent]

    def test_the_same_sent_twice_is_one(self, broker: Broker, other: Broker) -> None:
        sent = command("one")
        broker.send_command(sent)
        other.send_command(sent)
        assert broker.commands("host:1", 0.0) == [sent]

    def test_one_from_before_its_start_is_not_for_a_worker(self, broker: Broker) -> None:
        broker.send_command(command("one"))
        assert names(broker, "host:1", time.time() - 30) == ["one"]
        assert names(broker, "host:1", time.time() + 30) == []

    def test_what_was_replied_to_does_not_come_again_to_that_worker(self, broker: Broker, other: Broker) -> None:
        broker.send_command(command("one"))
        broker.send_command(command("two"))
        other.reply("one", CommandReply(worker_id="host:1"))
        assert names(other, "host:1") == ["two"]
        assert names(other, "host:2") == ["one", "two"]

    def test_replies_are_read_by_worker(self, broker: Broker, other: Broker) -> None:
        broker.send_command(command("one"))
        assert broker.replies("one") == broker.replies("nobody") == []
        refused = CommandReply(worker_id="host:2", done=False, text="it has no isolate 7: <ä>")
        other.reply("one", refused)
        other.reply("one", CommandReply(worker_id="host:1", text="done"))
        assert broker.replies("one") == [CommandReply(worker_id="host:1", text="done"), refused]
        other.reply("one", CommandReply(worker_id="host:1", text="done"))
        assert len(broker.replies("one")) == 2

    def test_a_command_wakes_every_worker(self, broker: Broker, other: Broker) -> None:
        watches = [handle.watch(boot, ["default"]) for handle, boot in ((broker, "alpha"), (other, "beta"))]
        for handle, watch in zip((broker, other), watches, strict=True):
            take(handle)
            quiet(watch)
        broker.send_command(command("one"))
        assert [wakes(watch) for watch in watches] == [True, True]
        for watch in watches:
            watch.close()

    def test_so_many_that_nobody_reads_them_take_no_room(self, broker: Broker) -> None:
        for number in range(1200):
            broker.send_command(command(f"c{number:04}"))
        found = names(broker, "host:1")
        assert 100 <= len(found) <= 1200 and found[-1] == "c1199" and found == sorted(found)


class ActionRules(Steps):
    def test_they_are_listed_newest_first(self, broker: Broker, other: Broker) -> None:
        assert broker.actions() == []
        first = Action(at=1.0, by="me@here", action="retry", target="task-1", result="done")
        second = Action(at=2.0, by="ä <b>", action="pause", target="images", result="2 workers")
        broker.log_action(first)
        other.log_action(second)
        assert broker.actions() == other.actions() == [second, first]
        assert broker.actions(1) == [second]

    def test_the_newest_are_kept(self, broker: Broker) -> None:
        for number in range(MOST_ACTIONS + 50):
            broker.log_action(Action(at=float(number), by="me", action="retry"))
        found = broker.actions(MOST_ACTIONS + 100)
        assert [each.at for each in found] == [float(MOST_ACTIONS + 49 - number) for number in range(MOST_ACTIONS)]
        assert len(broker.actions()) == 100

"""Canvases as a whole: revoked, forgotten, expired, and looked at."""

from __future__ import annotations

import threading
import time

import pytest

from stem_iso.brokers.base import Broker, MemberState, UnattendedEnd
from stem_iso.errors import UnknownResult
from stem_iso.outcome import TaskState
from stem_iso.testing.contract.canvas_steps import BOUND, chain, compose, group, known, leaf, previous, ready, run, success
from stem_iso.testing.contract.steps import FAILURE, Steps, envelope, settle, take, take_one


class WholeCanvases(Steps):
    def test_a_canvas_is_revoked_as_a_whole(self, broker: Broker) -> None:
        compose(broker, chain(leaf("a"), group("g", leaf("b"), leaf("c")), leaf("d", leaf("sorry"))))
        run(broker, "a", success(1))
        running = take_one(broker)
        assert broker.revoke("d", terminate=True)
        waited = {"b", "c"} - {running.receipt.id}
        assert known(broker, "g", "d", "sorry", *waited) == [(TaskState.CANCELLED, "revoked")] * 4
        (order,) = broker.revocations("alpha")
        assert (order.receipt, order.terminate) == (running.receipt, True)
        settle(broker, running, success(2))  # it was quicker: its success stands, and nothing follows
        assert take(broker) == []
        assert not broker.revoke("d")

    def test_a_group_inside_a_canvas_can_be_revoked_alone(self, broker: Broker) -> None:
        compose(broker, group("outer", group("inner", leaf("a"), leaf("b")), leaf("c")))
        assert broker.revoke("inner")
        assert known(broker, "a", "b", "inner", "outer") == [(TaskState.CANCELLED, "revoked")] * 3 + [(TaskState.FAILED, "member-failed")]
        run(broker, "c", success(1))

    def test_a_revoked_group_takes_its_chains_with_it_and_starts_no_callback(self, broker: Broker) -> None:
        inner = group("inner", chain(leaf("a"), leaf("b")), on_error=(leaf("sorry"),))
        compose(broker, chain(group("outer", inner, leaf("c")), leaf("d")))
        assert broker.revoke("inner")
        assert known(broker, "a", "b", "inner", "sorry") == [(TaskState.CANCELLED, "revoked")] * 4
        run(broker, "c", success(1))
        assert known(broker, "outer", "d") == [(TaskState.FAILED, "member-failed"), (TaskState.FAILED, "link-failed")]

    def test_what_a_revoked_group_kept_expires(self, broker: Broker) -> None:
        compose(broker, group("g", leaf("a"), leaf("b")))
        settle(broker, ready(broker)["a"], success(1, ttl=0.05))
        assert broker.revoke("g")
        deadline = time.monotonic() + BOUND
        while broker.status(["a"]) != [None]:
            assert time.monotonic() < deadline

    def test_a_canvas_whose_outcome_has_expired_is_still_the_same(self, broker: Broker) -> None:
        canvas = compose(broker, chain(leaf("a"), leaf("b")), b={"result_ttl": 0.0})
        run(broker, "a", FAILURE)
        broker.sweep()
        assert broker.status(["b"]) == [None]
        broker.compose(canvas)
        assert take(broker) == []
        assert broker.status(["b"]) == [None]

    def test_a_forgotten_canvas_leaves_nothing(self, broker: Broker) -> None:
        compose(broker, chain(group("g", leaf("a"), leaf("b")), leaf("c")))
        members = ready(broker)
        settle(broker, members["a"], success(1))
        assert broker.forget("c")
        settle(broker, members["b"], success(2))
        assert previous(run(broker, "c", success(3))) == [1, 2]
        assert broker.status(["a", "b", "c", "g"]) == [None] * 4

    def test_results_are_kept_until_the_group_has_ended_whatever_their_ttl(self, broker: Broker) -> None:
        compose(broker, chain(group("g", leaf("a"), leaf("b")), leaf("c")))
        members = ready(broker)
        settle(broker, members["a"], success("kept", ttl=0.0))
        broker.sweep()
        settle(broker, members["b"], success("too", ttl=0.01))
        assert previous(run(broker, "c", success(3))) == ["kept", "too"]
        assert broker.status(["a"]) == [None]

    def test_the_end_of_a_canvas_leaves_its_statuses_and_they_expire(self, broker: Broker) -> None:
        compose(broker, chain(group("g", leaf("a"), leaf("b")), leaf("c")), a={"result_ttl": 0.05}, b={"result_ttl": 0.05})
        for delivery in ready(broker).values():
            settle(broker, delivery, success(1, ttl=0.05))
        run(broker, "c", success(2, ttl=0.05))
        deadline = time.monotonic() + BOUND
        while broker.status(["a", "b", "c"]) != [None] * 3:
            assert time.monotonic() < deadline
        while broker.sweep():
            assert time.monotonic() < deadline
        assert broker.queues() == []

    def test_what_was_composed_can_be_read_again(self, broker: Broker, other: Broker) -> None:
        tree = chain(leaf("a"), group("g", leaf("b"), on_error=(leaf("sorry"),)), leaf("c"))
        compose(broker, tree)
        assert other.tree("c") == tree
        assert other.tree("a") is None
        assert other.tree("unknown") is None

    def test_members_are_returned_as_they_end(self, broker: Broker, other: Broker) -> None:
        compose(broker, group("g", leaf("a"), leaf("b")))
        assert other.members("g") == [MemberState("a", TaskState.QUEUED), MemberState("b", TaskState.QUEUED)]
        assert other.members("a") is None
        with pytest.raises(TimeoutError):
            other.wait_members("g", 2, 0.01)
        with pytest.raises(UnknownResult):
            other.wait_members("a", 2, 0.01)
        members = ready(broker)
        found: list[list[MemberState]] = []
        waiter = threading.Thread(target=lambda: found.append(other.wait_members("g", 2, BOUND)))
        waiter.start()
        settle(broker, members["b"], success(1))
        waiter.join(BOUND)
        assert found == [[MemberState("a", TaskState.RUNNING), MemberState("b", TaskState.SUCCEEDED)]]
        settle(broker, members["a"], FAILURE)
        ended = other.wait_members("g", 1, BOUND)
        assert [member.state for member in ended] == [TaskState.FAILED, TaskState.SUCCEEDED]

    def test_a_replayed_link_runs_alone(self, broker: Broker) -> None:
        from stem_iso.testing.contract.steps import ALL

        compose(broker, chain(leaf("a"), leaf("b")))
        run(broker, "a", FAILURE)
        assert [each.id for each in broker.replay(ALL)] == ["a"]
        run(broker, "a", success(1))
        assert take(broker) == []
        assert known(broker, "b") == [(TaskState.FAILED, "link-failed")]

    def test_a_replayed_member_runs_alone_and_is_none_of_its_group(self, broker: Broker, other: Broker) -> None:
        from stem_iso.testing.contract.steps import ALL

        compose(broker, group("g", leaf("a"), leaf("b")))
        members = ready(broker)
        settle(broker, members["a"], FAILURE)
        assert other.members("g") == [MemberState("a", TaskState.FAILED), MemberState("b", TaskState.RUNNING)]
        assert [each.id for each in broker.replay(ALL)] == ["a"]
        assert other.members("g") == [MemberState("b", TaskState.RUNNING)]
        settle(broker, take_one(broker), success(1))
        settle(broker, members["b"], success(2))
        assert other.members("g") == [MemberState("b", TaskState.SUCCEEDED)]
        assert known(broker, "a", "g") == [(TaskState.SUCCEEDED, None), (TaskState.FAILED, "member-failed")]

    # -- ends that no worker has seen --------------------------------------------------------------------------------------------------

    def test_what_ends_while_it_waits_is_reported_to_one_worker(self, broker: Broker, other: Broker) -> None:
        for id in ("a", "b", "c"):
            broker.publish([envelope(id=id, name=f"task.{id}")])
        running = take_one(broker)
        assert broker.revoke("b") and broker.revoke(running.receipt.id)
        broker.purge("default")
        assert other.unattended_ends() == [
            UnattendedEnd("b", "task.b", "default", 0, 0, TaskState.CANCELLED, "revoked"),
            UnattendedEnd("c", "task.c", "default", 0, 0, TaskState.CANCELLED, "purged"),
        ]
        assert broker.unattended_ends() == []

    def test_a_canvas_that_fails_is_reported_and_its_skipped_parts_are_not(self, broker: Broker) -> None:
        compose(broker, chain(leaf("a"), leaf("b"), leaf("c")))
        run(broker, "a", FAILURE)
        (notice,) = broker.unattended_ends()
        assert (notice.id, notice.name, notice.state, notice.reason) == ("c", "task.c", TaskState.FAILED, "link-failed")
        assert notice.error is not None and "task.a (a)" in notice.error.message
        compose(broker, group("g", leaf("d"), leaf("e")))
        run(broker, "d", FAILURE)
        assert [each.id for each in broker.unattended_ends()] == ["g"]

    def test_of_a_revoked_canvas_what_stood_in_a_queue_and_the_canvas_are_reported(self, broker: Broker) -> None:
        compose(broker, chain(leaf("a"), leaf("b"), leaf("c")))
        assert broker.revoke("c")
        assert sorted(each.id for each in broker.unattended_ends()) == ["a", "c"]

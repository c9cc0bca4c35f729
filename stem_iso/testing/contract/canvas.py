"""Canvases: what follows what, each part once, whoever drives it."""

from __future__ import annotations

import time

import msgspec
import pytest

from stem_iso.brokers.base import Broker
from stem_iso.outcome import TaskError, TaskState
from stem_iso.task.envelope import decode
from stem_iso.task.settlement import Finish
from stem_iso.testing.contract.canvas_steps import BOUND, chain, compose, group, known, leaf, previous, ready, run, success
from stem_iso.testing.contract.steps import FAILURE, Steps, counts, next_attempt, settle, status, take, take_one


class Canvases(Steps):
    def test_a_link_begins_when_the_one_before_it_has_succeeded(self, broker: Broker) -> None:
        canvas = compose(broker, chain(leaf("a"), leaf("b"), leaf("c")))
        assert canvas.id == "c"
        assert known(broker, "a", "b", "c") == [(TaskState.QUEUED, None), *[(TaskState.QUEUED, "waiting")] * 2]
        assert counts(broker) == (1, 0, 0, 0)
        assert previous(run(broker, "a", success(1))) is None
        assert previous(run(broker, "b", success({"two": 2}))) == 1
        last = run(broker, "c", success(3))
        assert (previous(last), last.parent_id) == ({"two": 2}, "b")
        assert counts(broker) == (0, 0, 0, 0)
        assert broker.wait("c", BOUND).result == msgspec.msgpack.encode(3)

    def test_a_failed_link_fails_what_stands_behind_it_and_is_named(self, broker: Broker) -> None:
        compose(broker, chain(leaf("a"), leaf("b"), leaf("c")))
        run(broker, "a", FAILURE)
        assert take(broker) == []
        assert known(broker, "b", "c") == [(TaskState.FAILED, "link-failed")] * 2
        error = broker.wait("c", BOUND).error
        assert error is not None
        assert error.type == "builtins.ValueError"
        assert "task.a (a)" in error.message
        assert counts(broker) == (0, 0, 0, 1)  # one dead letter: what never ran is none

    def test_a_retry_keeps_its_place_and_what_stands_before_it(self, broker: Broker) -> None:
        compose(broker, chain(leaf("a"), leaf("b")))
        run(broker, "a", success(1))
        delivery = take_one(broker)
        settle(broker, delivery, next_attempt(decode(delivery.body)))
        assert status(broker, "b").state is TaskState.RETRIED
        assert previous(run(broker, "b", success(2))) == 1

    def test_a_callback_gets_the_results_of_the_members_in_their_order_and_once(self, broker: Broker) -> None:
        compose(broker, chain(group("g", leaf("a"), leaf("b"), leaf("c")), leaf("d")))
        members = ready(broker)
        assert set(members) == {"a", "b", "c"}
        for id in ("c", "a", "b"):
            assert take(broker) == []
            settle(broker, members[id], success(id))
        assert previous(run(broker, "d", success("done"))) == ["a", "b", "c"]
        assert status(broker, "g").state is TaskState.SUCCEEDED
        settle(broker, members["b"], success("again"))
        assert take(broker) == []

    def test_members_that_end_in_one_exchange_are_all_counted(self, broker: Broker) -> None:
        from stem_iso.brokers.base import Settlement

        compose(broker, chain(group("g", *(leaf(f"m{n}") for n in range(5))), leaf("d")))
        members = ready(broker)
        settled = [Settlement(members[f"m{n}"].receipt, success(n)) for n in range(5)]
        answer = broker.exchange("alpha", settled, ["default"], 10)
        assert [delivery.receipt.id for delivery in answer.deliveries] == ["d"]

    def test_a_failed_member_fails_the_group_at_once_and_its_callback_never_runs(self, broker: Broker) -> None:
        compose(broker, chain(group("g", leaf("a"), leaf("b")), leaf("d")))
        members = ready(broker)
        settle(broker, members["b"], FAILURE)
        assert known(broker, "g", "d") == [(TaskState.FAILED, "member-failed"), (TaskState.FAILED, "link-failed")]
        for id in ("g", "d"):
            error = status(broker, id).error
            assert error is not None
            assert "task.b (b)" in error.message
        settle(broker, members["a"], success("a"))
        assert take(broker) == []
        assert status(broker, "a").state is TaskState.SUCCEEDED

    @pytest.mark.parametrize("how", ["revoked", "expired", "purged"])
    def test_a_member_that_never_runs_fails_the_group(self, broker: Broker, how: str) -> None:
        compose(broker, chain(group("g", leaf("a"), leaf("b")), leaf("d")))
        if how == "revoked":
            assert broker.revoke("b")
        elif how == "expired":
            settle(broker, ready(broker)["b"], Finish(TaskState.CANCELLED, reason="expired"))
        else:
            assert broker.purge("default") == 2
        record = broker.wait("d", BOUND)
        assert record.state is TaskState.FAILED
        assert record.error is not None and "cancelled" in record.error.message and how in record.error.message

    def test_a_lost_member_fails_the_group(self, broker: Broker) -> None:
        compose(broker, chain(group("g", leaf("a"), leaf("b")), leaf("d")), b={"visibility_timeout": 0.05, "acks_late": False})
        assert broker.mark(ready(broker)["b"].receipt)
        deadline = time.monotonic() + BOUND
        while not broker.reclaim("beta"):
            assert time.monotonic() < deadline
        assert known(broker, "b", "g", "d") == [
            (TaskState.FAILED, "worker-lost"),
            (TaskState.FAILED, "member-failed"),
            (TaskState.FAILED, "link-failed"),
        ]

    def test_groups_and_chains_nest(self, broker: Broker) -> None:
        inner = group("inner", leaf("b"), chain(leaf("c"), leaf("d")))
        compose(broker, chain(leaf("a"), group("outer", inner, leaf("e")), leaf("f")))
        run(broker, "a", success("a"))
        members = ready(broker)
        assert set(members) == {"b", "c", "e"}
        assert [previous(decode(members[id].body)) for id in ("b", "c", "e")] == ["a"] * 3
        for id in ("e", "b", "c"):
            settle(broker, members[id], success(id))
        assert previous(run(broker, "d", success("d"))) == "c"
        assert previous(run(broker, "f", success("f"))) == [["b", "d"], "e"]

    def test_a_failure_deep_inside_names_the_task_that_began_it(self, broker: Broker) -> None:
        compose(broker, chain(group("outer", chain(leaf("a"), group("inner", leaf("b")), leaf("c")), leaf("d")), leaf("e")))
        settle(broker, ready(broker)["a"], FAILURE)
        assert known(broker, "b", "inner", "c", "outer", "e") == [
            (TaskState.FAILED, "link-failed"),
            (TaskState.FAILED, "member-failed"),
            (TaskState.FAILED, "link-failed"),
            (TaskState.FAILED, "member-failed"),
            (TaskState.FAILED, "link-failed"),
        ]
        error = status(broker, "e").error
        assert error is not None and "task.a (a)" in error.message

    def test_a_group_of_nothing_succeeds_with_nothing(self, broker: Broker) -> None:
        compose(broker, group("g"))
        assert broker.wait("g", BOUND).state is TaskState.SUCCEEDED
        compose(broker, chain(group("h"), leaf("a"), group("i"), group("j", group("k"), leaf("b")), leaf("c")))
        assert previous(run(broker, "a", success(1))) == []
        assert previous(run(broker, "b", success(2))) == []
        assert previous(run(broker, "c", success(3))) == [[], 2]

    def test_the_same_canvas_again_changes_nothing(self, broker: Broker, other: Broker) -> None:
        canvas = compose(broker, chain(leaf("a"), leaf("b")))
        other.compose(canvas)
        run(broker, "a", success(1))
        other.compose(canvas)
        assert previous(run(broker, "b", success(2))) == 1
        other.compose(canvas)
        assert take(broker) == []

    def test_a_canvas_too_large_is_refused_whole(self, broker: Broker) -> None:
        from stem_iso.errors import PayloadTooLarge

        large = msgspec.Raw(msgspec.msgpack.encode({"x": b"x" * (broker.options.max_payload_bytes + 1)}))
        with pytest.raises(PayloadTooLarge):
            compose(broker, chain(leaf("a"), leaf("b")), b={"args": large})
        assert broker.status(["a", "b"]) == [None, None]

    def test_results_that_are_too_large_together_fail_the_group(self, broker: Broker) -> None:
        compose(broker, chain(group("g", leaf("a"), leaf("b")), leaf("c")), most=100)
        for delivery in ready(broker).values():
            settle(broker, delivery, success("x" * 60))
        assert known(broker, "g", "c") == [(TaskState.FAILED, "results-too-large"), (TaskState.FAILED, "link-failed")]

    def test_a_delay_and_an_expiry_count_from_the_start_of_a_step(self, broker: Broker) -> None:
        compose(broker, chain(leaf("a"), leaf("b")), b={"starts_in": 0.1, "expires_in": 60.0})
        before = time.time()
        run(broker, "a", success(1))
        record = status(broker, "b")
        assert record.not_before is not None and before + 0.1 <= record.not_before
        assert counts(broker) == (0, 1, 0, 0) or time.time() >= record.not_before
        deadline = time.monotonic() + BOUND
        while not (found := take(broker)):
            assert time.monotonic() < deadline
        begun = decode(found[0].body)
        assert begun.expires is not None and before + 60.0 <= begun.expires <= time.time() + 60.0

    # -- errors ------------------------------------------------------------------------------------------------------------------------

    def test_an_error_callback_gets_what_failed_and_only_then(self, broker: Broker) -> None:
        compose(broker, chain(leaf("a"), leaf("b", leaf("sorry"))))
        run(broker, "a", FAILURE)
        error = previous(run(broker, "sorry", success(None)))
        assert (error["id"], error["name"], error["state"], error["reason"]) == ("a", "task.a", "failed", "max-retries-exhausted")
        assert msgspec.convert(error, TaskError).type == "builtins.ValueError"

    def test_an_error_callback_of_what_succeeds_is_dropped(self, broker: Broker) -> None:
        compose(broker, group("g", leaf("a"), on_error=(leaf("sorry"),)))
        run(broker, "a", success(1))
        assert take(broker) == []
        assert broker.status(["sorry"]) == [None]

    def test_what_follows_the_failure_of_an_error_callback(self, broker: Broker) -> None:
        for name, plan in (("succeeds", success(1)), ("fails", FAILURE)):
            compose(broker, leaf(name, leaf(f"sorry-{name}", leaf(f"worse-{name}"))))
            run(broker, name, plan)
        run(broker, "sorry-fails", FAILURE)
        assert previous(run(broker, "worse-fails", success(None)))["id"] == "sorry-fails"
        assert broker.status(["sorry-succeeds", "worse-succeeds"]) == [None, None]

    def test_an_error_callback_of_a_group_is_called_once(self, broker: Broker) -> None:
        compose(broker, group("g", leaf("a"), leaf("b"), on_error=(leaf("sorry"),)))
        for delivery in ready(broker).values():
            settle(broker, delivery, FAILURE)
        assert previous(run(broker, "sorry", success(None)))["id"] == "a"
        assert take(broker) == []

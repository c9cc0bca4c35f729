"""Steps that every rule needs: envelopes, and the small steps of a producer and a worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Protocol, runtime_checkable

import msgspec
import pytest

from stem_iso.brokers.base import Broker, DeadFilter, Delivery, Settlement, StatusRecord, Verdict
from stem_iso.brokers.url import open_broker
from stem_iso.outcome import TaskError, TaskState
from stem_iso.task.envelope import Envelope
from stem_iso.task.settlement import Finish, GiveBack, Plan, Retry

ALL = DeadFilter()
RESULT = msgspec.msgpack.encode(42)
ERROR = TaskError(type="builtins.ValueError", message="no")
SUCCESS = Finish(TaskState.SUCCEEDED, result=RESULT)
FAILURE = Finish(TaskState.FAILED, reason="max-retries-exhausted", error=ERROR)
CANCEL = Finish(TaskState.CANCELLED, reason="expired")

_numbers = count(1)


def envelope(**fields: Any) -> Envelope:
    """An id of its own unless one is given; `args` are {} in msgpack."""
    return Envelope(**{"id": f"task-{next(_numbers)}", "name": "thumbs.make", "args": msgspec.Raw(b"\x80"), **fields})


def next_attempt(of: Envelope, **fields: Any) -> Retry:
    successor = msgspec.structs.replace(of, **{"attempt": of.attempt + 1, "not_before": None, **fields})
    return Retry(successor, "builtins.ValueError", ERROR)


def take(broker: Broker, want: int = 10, boot: str = "alpha", queues: Sequence[str] = ("default",)) -> list[Delivery]:
    return broker.exchange(boot, [], queues, want).deliveries


def take_one(broker: Broker, boot: str = "alpha", queues: Sequence[str] = ("default",)) -> Delivery:
    (delivery,) = take(broker, 1, boot, queues)
    return delivery


def settle(broker: Broker, delivery: Delivery, plan: Plan, **written: Any) -> Verdict:
    exchange = broker.exchange(delivery.receipt.boot, [Settlement(delivery.receipt, plan, **written)], [], 0)
    return exchange.verdicts[0]


def give_back(broker: Broker, delivery: Delivery, delay: float = 0.0) -> Verdict:
    return settle(broker, delivery, GiveBack(delay))


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.receipt.id for delivery in deliveries]


def status(broker: Broker, id: str) -> StatusRecord:
    (record,) = broker.status([id])
    assert record is not None
    return record


def counts(broker: Broker, queue: str = "default") -> tuple[int, int, int, int]:
    """queued, delayed, running, dead"""
    for one in broker.queues():
        if one.name == queue:
            return one.queued, one.delayed, one.running, one.dead
    return 0, 0, 0, 0


@runtime_checkable
class Twin(Protocol):
    """A broker whose URL alone does not lead to its store."""

    def twin(self) -> Broker: ...


class Steps:
    """The hooks of the contract."""

    def another(self, broker: Broker) -> Broker:
        """A second handle on the same store."""
        return broker.twin() if isinstance(broker, Twin) else open_broker(broker.url, broker.options)

    @pytest.fixture
    def other(self, broker: Broker) -> Iterator[Broker]:
        other = self.another(broker)
        yield other
        other.close()

"""A read on behalf of many: as often as its price allows, and never older than it may be."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from stem_iso.dashboard.paced_read import LONGEST_REST, OLDEST, PacedRead
from stem_iso.errors import BrokerUnavailable
from tests.isolate.calling import eventually


class Store:
    """Counts how often it was read; each read takes `cost` seconds of a clock that the test moves."""

    def __init__(self, cost: float) -> None:
        self.now, self.cost, self.reads = 0.0, cost, 0
        self.before: Callable[[], object] = lambda: None
        self.paced = PacedRead(self._read, clock=lambda: self.now)

    def _read(self) -> int:
        self.before()
        self.reads += 1
        self.now += self.cost
        return self.reads


def test_what_is_cheap_is_read_each_time() -> None:
    store = Store(0.001)
    assert store.paced.value() == 1
    store.now += 0.05
    assert store.paced.value() == 2


def test_however_many_look_reading_takes_a_fortieth_of_the_time() -> None:
    store = Store(0.02)
    while store.now < 60.0:
        store.paced.value()
        store.now += 0.001
    assert 60 / 41 - 0.1 < store.reads * store.cost <= 60 / 40


def test_what_is_dear_is_shown_again_and_read_beside_that() -> None:
    store = Store(0.5)
    assert store.paced.value() == 1
    store.now += LONGEST_REST - 0.1
    assert store.paced.value() == 1 and store.reads == 1
    store.now += 0.2
    assert store.paced.value() == 1
    eventually(lambda: store.paced.value() == 2, "it is not read anew")


def test_nobody_sees_what_is_too_old() -> None:
    store = Store(0.5)
    assert store.paced.value() == 1
    store.now += OLDEST
    assert store.paced.value() == 2


def test_a_change_is_seen_at_once() -> None:
    store = Store(0.5)
    assert store.paced.value() == 1
    store.paced.forget()
    assert store.paced.value() == 2


def test_a_change_in_the_middle_of_a_read_is_not_lost() -> None:
    store = Store(0.5)
    store.before = store.paced.forget
    assert store.paced.value() == 1
    store.before = lambda: None
    assert store.paced.value() == 2


def test_many_who_come_at_once_wait_for_one_read() -> None:
    store, go = Store(0.5), threading.Event()
    store.before = go.wait
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(store.paced.value())) for _ in range(5)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert found == [1] * 5


def test_a_broker_that_is_away_is_said_when_the_value_is_too_old() -> None:
    store = Store(0.5)
    assert store.paced.value() == 1

    def away() -> None:
        raise BrokerUnavailable("away")

    store.before = away
    store.now += LONGEST_REST + 0.1
    assert store.paced.value() == 1
    store.now += OLDEST
    with pytest.raises(BrokerUnavailable):
        store.paced.value()

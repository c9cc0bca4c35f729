"""Nothing that is put waits for the end of a park, whatever the order of the two."""

from __future__ import annotations

import os
import threading
import time

from stem_iso.worker.inbox import Inbox


def test_what_is_put_before_the_park_ends_it_at_once():
    inbox: Inbox[int] = Inbox()
    inbox.put(1)
    before = time.monotonic()
    inbox.park(30)
    assert time.monotonic() - before < 5
    assert inbox.take() == 1


def test_what_is_put_during_the_park_ends_it():
    inbox: Inbox[int] = Inbox()
    threading.Timer(0.2, inbox.put, (7,)).start()
    before = time.monotonic()
    inbox.park(30)
    assert time.monotonic() - before < 5
    assert inbox.take() == 7


def test_below_its_quorum_an_item_waits_for_company_and_an_urgent_one_does_not():
    inbox: Inbox[int] = Inbox()
    inbox.quorum = 3
    inbox.put(1)
    before = time.monotonic()
    inbox.park(0.1)
    assert time.monotonic() - before >= 0.1
    threading.Timer(0.2, inbox.put_now, (2,)).start()
    inbox.park(30)
    threading.Timer(0.2, inbox.put, (3,)).start()
    inbox.park(30)
    assert time.monotonic() - before < 10
    assert [inbox.take() for _ in range(4)] == [1, 2, 3, None]


def test_ten_thousand_messages_from_four_threads_all_arrive_and_no_park_outlasts_them():
    inbox: Inbox[tuple[int, int]] = Inbox()
    threads = [threading.Thread(target=lambda who=who: [inbox.put((who, each)) for each in range(2500)]) for who in range(4)]
    for thread in threads:
        thread.start()
    taken: list[tuple[int, int]] = []
    before = time.monotonic()
    while len(taken) < 10_000:
        inbox.park(30)
        while (item := inbox.take()) is not None:
            taken.append(item)
    assert time.monotonic() - before < 20
    assert all([each for who, each in taken if who == sender] == list(range(2500)) for sender in range(4))


def test_a_watched_descriptor_ends_the_park_and_is_named():
    inbox: Inbox[int] = Inbox()
    eventfd = os.eventfd(1)
    inbox.watch(eventfd)
    assert inbox.park(30) == [eventfd]
    inbox.unwatch(eventfd)
    assert inbox.park(0) == []
    os.close(eventfd)


def test_a_sender_who_saw_the_consumer_parked_may_still_ring_when_the_inbox_is_closed():
    class Quorum:
        """Looked at by a consumer that has said that it is parked, and by a sender that has seen it."""

        def __le__(self, count: int) -> bool:
            if threading.current_thread() is consumer:
                parked.set()
                return False
            inbox.put_now(2)
            consumer.join(10)
            inbox.close()
            return True

    inbox: Inbox[int] = Inbox()
    inbox.quorum = Quorum()  # type: ignore[assignment]
    parked = threading.Event()
    consumer = threading.Thread(target=inbox.park, args=(30,))
    consumer.start()
    assert parked.wait(10)
    inbox.put(1)
    assert [inbox.take(), inbox.take()] == [1, 2]

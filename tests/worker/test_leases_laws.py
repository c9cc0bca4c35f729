"""Laws of renewal: no lease that its worker keeps an eye on runs out, and nobody renews more often than it must."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from stem_iso.brokers.base import Receipt
from stem_iso.worker.leases import Leases

visibilities = st.lists(st.floats(0.01, 1000, allow_nan=False), min_size=1, max_size=8)


def receipt(number: int) -> Receipt:
    return Receipt(f"task-{number}", "boot", number)


@settings(max_examples=60, deadline=None)
@given(visibilities, st.lists(st.floats(0, 0.2), max_size=40))
def test_a_worker_that_renews_when_due_never_lets_a_lease_run_out(visibilities, lateness):
    leases, ends, now = Leases(), {}, 0.0
    for number, visibility in enumerate(visibilities):
        leases.hold(receipt(number), visibility, now)
        ends[number] = visibility
    shortest = min(visibilities)
    for late in lateness:
        now = max(now, leases.next_due()) + late * shortest  # a fifth of the shortest lease late, at worst
        assert all(end > now for end in ends.values())
        due = leases.due(now)
        leases.renewed(due, now)
        for each in due:
            ends[each.sequence] = now + visibilities[each.sequence]


@settings(max_examples=60, deadline=None)
@given(visibilities)
def test_nothing_is_renewed_before_a_fifth_of_its_visibility(visibilities):
    leases = Leases()
    for number, visibility in enumerate(visibilities):
        leases.hold(receipt(number), visibility, 0.0)
    early = min(visibilities) / 5
    assert leases.due(early) == []
    assert leases.next_due() > early


@settings(max_examples=60, deadline=None)
@given(st.floats(0.1, 1000), st.lists(st.floats(0, 0.01), min_size=1, max_size=60))
def test_a_handler_that_never_stops_beating_is_renewed_soon_and_seldom(visibility, gaps):
    leases, now, renewals = Leases(), 0.0, []
    leases.hold(receipt(0), visibility, now)
    for gap in gaps:
        now += gap
        leases.beat(receipt(0))
        if leases.due(now):
            leases.renewed([receipt(0)], now)
            renewals.append(now)
    wait = min(0.1, visibility / 20)
    assert all(later - earlier >= wait * 0.999 for earlier, later in pairwise(renewals))
    assert len(renewals) >= int(now / (wait + 0.01)) - 1


def test_a_beat_is_due_at_once_where_the_lease_is_older_than_its_pause():
    leases = Leases()
    leases.hold(receipt(1), 300.0, 0.0)
    leases.beat(receipt(1))
    assert leases.next_due() == 0.1
    assert leases.due(0.1) == [receipt(1)]


def test_a_dropped_lease_is_never_renewed_again():
    leases = Leases()
    leases.hold(receipt(1), 1.0, 0.0)
    leases.beat(receipt(1))
    leases.drop(receipt(1))
    assert leases.due(100.0) == []
    assert leases.next_due() == float("inf")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 8), st.sets(st.integers(0, 12)))
def test_a_lease_that_nobody_answers_for_is_renewed_no_more(count, accounted):
    leases = Leases()
    for number in range(count):
        leases.hold(receipt(number), 3.0, 0.0)
    dropped = leases.keep({receipt(number) for number in accounted})
    kept = {receipt(number) for number in set(range(count)) & accounted}
    assert set(leases.held()) == set(leases.due(2.0)) == kept
    assert set(dropped) == {receipt(number) for number in range(count)} - kept

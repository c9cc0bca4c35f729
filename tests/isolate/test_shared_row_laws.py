"""The keeper's decision from one look at a shared row."""

from __future__ import annotations

import os
import threading
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from stem_iso.isolate import shared_row
from stem_iso.isolate.child.shared_host import Running
from stem_iso.isolate.shared_row import MARGIN, SLOTS, CheckAgain, Enforce, Page, SharedRow, Table, judge

times = st.floats(1, 1e6)
rows = st.builds(
    SharedRow, st.integers(0, 5), st.one_of(st.just(0.0), times), st.integers(0, 5), st.integers(0, 5), st.sampled_from([0, 0, 0, 513])
)


@given(rows, times)
def test_only_a_call_that_runs_past_its_limit_and_margin_is_ended(row: SharedRow, now: float) -> None:
    runs = row.call != 0 and row.started == row.call != row.finished
    late = row.deadline != 0 and now >= row.deadline + MARGIN
    assert isinstance(judge(row, now), Enforce) == (runs and late and not row.verdict)


@given(rows, times)
def test_the_next_look_is_never_in_the_past_and_never_past_the_limit(row: SharedRow, now: float) -> None:
    match judge(row, now):
        case CheckAgain(at):
            assert at > now or at == row.deadline + MARGIN
            if row.deadline and row.call and row.finished != row.call and not row.verdict and now < row.deadline + MARGIN:
                assert at == row.deadline + MARGIN
        case Enforce(call):
            assert call == row.call


@given(rows, rows)
def test_the_second_look_spares_whatever_moved_on(before: SharedRow, after: SharedRow) -> None:
    same = (before.call, before.deadline) == (after.call, after.deadline) and after.finished != before.call
    assert shared_row.stands(before, after) == same


@given(st.integers(1, 2**48), st.integers(1, 255), st.integers(1, 2**48))
def test_a_verdict_names_its_call_and_no_other(call: int, reason: int, other: int) -> None:
    verdict = shared_row.pack_verdict(call, reason)
    assert shared_row.verdict_on(verdict, call)
    assert shared_row.verdict_on(verdict, other) == (other == call)
    assert not shared_row.verdict_on(0, call)


def _table() -> Table:
    fd = os.memfd_create("table")
    os.ftruncate(fd, shared_row.table_size(4))
    return Table(fd, 4)


def test_a_standing_verdict_forbids_the_next_call() -> None:
    table = _table()
    assert table.send(2, 7, 5.0)
    table.set_verdict(2, shared_row.pack_verdict(7, shared_row.LIMIT))
    assert not table.send(2, 8, 6.0)
    assert table.send(3, 9, 6.0), "a verdict in one row says nothing about another"


def test_rows_and_pages_hold_what_was_stored() -> None:
    table = _table()
    fd = os.memfd_create("page")
    os.ftruncate(fd, Page.SIZE)
    page, other = Page(fd), Page(fd)
    page.started, page.finished = 3, 2
    table.send(1, 3, 12.5)
    table.armed = inf
    assert table.read(1, other) == SharedRow(3, 12.5, 3, 2, 0)
    assert table.armed == inf
    table.clear(1)
    assert table.read(1, other) == SharedRow(0, 0.0, 3, 2, 0)


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 2**22 - 1)), max_size=30), st.integers(1, 3000))
def test_a_page_says_in_which_thread_a_call_runs_or_that_its_slot_is_anothers(written, asked):
    page = new_page()
    try:
        for call, thread in written:
            page.set_thread(call, thread)
        last = {call % SLOTS[1]: (call, thread) for call, thread in written}.get(asked % SLOTS[1], (0, 0))
        assert page.in_slot_of(asked) == last[0]
        assert page.thread_of(asked) == (last[1] if last[0] == asked else 0)
        assert (page.started, page.finished, page.barred) == (0, 0, 0)
    finally:
        page.close()


def test_a_call_whose_slot_another_one_that_runs_has_says_where_it_runs_in_a_frame():
    page, call = new_page(), object()
    running = Running(None, page)
    long, late = 5, 5 + SLOTS[1]
    running.calls[long] = running.calls[late] = call  # type: ignore[assignment]  # nothing is asked of them
    assert running.runs_here(long)
    assert not running.runs_here(late)
    assert (page.thread_of(long), page.thread_of(late)) == (threading.get_native_id(), 0)
    running.remove(long)
    assert running.runs_here(late)
    assert (page.thread_of(long), page.thread_of(late)) == (0, threading.get_native_id())
    page.close()


def new_page() -> Page:
    fd = os.memfd_create("page")
    try:
        os.ftruncate(fd, Page.SIZE)
        return Page(fd)
    finally:
        os.close(fd)

"""The deadlines of a hosted call, and its fate; which host takes calls; what is written before a call begins or is taken back."""

from __future__ import annotations

import os
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_iso.isolate.child.shared_host import pack_reply
from stem_iso.isolate.engine.allocator import BOOT_TRIES, backoff
from stem_iso.isolate.engine.deadlines import Alarm
from stem_iso.isolate.engine.endings import of_hosted_reply
from stem_iso.isolate.engine.lifecycle import Cause
from stem_iso.isolate.engine.shared_host.call import END_GRACE, LATE, UNREAD, Fate, HostCall
from stem_iso.isolate.engine.shared_host.roster import Roster
from stem_iso.isolate.interfaces import EntrypointRef, HostedJob, Limits
from stem_iso.isolate.shared_row import Page
from stem_iso.isolate.wire import CallFrame, Garbage, pack_hosted, unpack_hosted
from stem_iso.outcome import Crashed, Failed, Rejected, RetryAsked, Stopped, StopReason, Succeeded, TaskError, TimedOut
from tests.isolate.calling import Recorder


def call(coroutine: bool = True, **limits: float) -> HostCall:
    made = HostCall(HostedJob(EntrypointRef(1, lambda ready: b""), b"", limits=Limits(**limits), coroutine=coroutine), Recorder())  # type: ignore[arg-type]
    made.begin(-1, 1, 100.0)
    return made


def rings(one: HostCall, until: float) -> list[tuple[float, Alarm]]:
    """When each alarm rings (seconds after the call was sent), if somebody looks at the call as often as it asks."""
    found: list[tuple[float, Alarm]] = []
    while one.next_at < until:
        at = one.next_at
        found += [(round(at - 100, 6), alarm) for alarm in one.due(at)]
    return found


def test_the_alarms_ring_once_in_their_order() -> None:
    unread = (UNREAD, Alarm.UNREAD)
    both = [(1 + LATE, Alarm.SOFT), unread, (3 + LATE, Alarm.HARD), (3 + END_GRACE, Alarm.OVER)]
    assert rings(call(soft=1, hard=3), inf) == both
    assert rings(call(coroutine=False, soft=1), inf) == [both[0], unread]
    assert rings(call(), inf) == [unread]


def test_what_the_host_reports_in_time_the_core_does_not() -> None:
    reported = call(soft=1, hard=3)
    assert reported.soft_notice(1.0, "") and not reported.soft_notice(1.1, "")
    reported.end_by(Cause.LIMIT, 103.0)
    assert [alarm for _, alarm in rings(reported, inf)] == [Alarm.UNREAD, Alarm.OVER]


def test_a_word_moves_the_silence_and_nothing_else() -> None:
    beating = call(hard=10, heartbeat=1)
    beating.deadlines.beat(100.9)
    assert rings(beating, 103.5) == [(1.9 + LATE, Alarm.SILENCE), (UNREAD, Alarm.UNREAD)]
    assert beating.ending is Cause.SILENCE and beating.deadlines.kill_at == 101.9
    beating.deadlines.beat(102.0)
    assert rings(beating, inf) == [(1.9 + END_GRACE, Alarm.OVER)]


def test_a_call_that_another_host_runs_has_its_limits_anew_but_one_soft_notice() -> None:
    moved = call(soft=1, hard=3)
    moved.soft_notice(1.0, "")
    moved.begin(-2, 2, 100.0)
    assert [alarm for _, alarm in rings(moved, inf)] == [Alarm.UNREAD, Alarm.HARD, Alarm.OVER]


@pytest.mark.parametrize(
    ("stop", "ending", "started", "cause", "fate"),
    [
        (None, None, True, None, Fate.CRASHED),
        (None, None, False, None, Fate.AGAIN),
        (None, None, False, Cause.DRAINED, Fate.AGAIN),
        (None, None, True, Cause.DRAINED, Fate.DISPLACED),
        (None, None, True, Cause.CLOSING, Fate.CLOSED),
        (None, None, True, Cause.GARBAGE, Fate.CRASHED),
        (StopReason.REVOKED, Cause.STOPPED, True, Cause.DRAINED, Fate.STOPPED),
        (StopReason.REVOKED, Cause.STOPPED, False, None, Fate.STOPPED),
        (None, Cause.LIMIT, True, Cause.DRAINED, Fate.TIMED_OUT),
        (None, Cause.SILENCE, False, None, Fate.TIMED_OUT),
        (StopReason.SHUTDOWN, Cause.LIMIT, True, Cause.DRAINED, Fate.TIMED_OUT),
    ],
)
def test_the_fate_of_a_call_whose_host_is_gone(
    stop: StopReason | None, ending: Cause | None, started: bool, cause: Cause | None, fate: Fate
) -> None:
    one = call(hard=3)
    one.stop = stop
    if ending is not None:
        one.end_by(ending, 101.0)
    assert one.fate(started=started, cause=cause) is fate


# -- the roster ------------------------------------------------------------------------------------------------------------------------


def test_a_host_is_started_where_calls_wait_or_always_and_one_at_a_time() -> None:
    assert Roster(eager=False).decide(0, 0.0) is None
    assert Roster(eager=False).decide(1, 0.0) == -1
    roster = Roster(eager=True)
    assert roster.decide(0, 0.0) == -1 and roster.decide(5, 0.0) is None
    roster.ready(-1)
    assert roster.open == -1 and roster.decide(5, 0.0) is None
    roster.left(-1)
    assert roster.open is None and roster.decide(0, 0.0) == -2


def test_no_host_is_started_while_nobody_could_or_when_all_ends() -> None:
    for name in ("closed", "paused"):
        roster = Roster(eager=True)
        setattr(roster, name, True)
        assert roster.decide(1, 0.0) is None


@given(st.integers(1, 2000))
def test_boots_that_fail_are_put_off_and_in_the_end_whoever_waits_is_given_up(failures: int) -> None:
    roster, now = Roster(eager=True), 0.0
    for number in range(1, failures + 1):
        host = roster.decide(1, now)
        assert host == -number
        assert roster.failed(host, now) is (number >= BOOT_TRIES)
        assert roster.decide(1, now) is None and roster.boot_after == now + backoff(number)
        now = roster.boot_after
    roster.proved()
    assert roster.boot_failures == 0


def test_the_end_of_an_old_host_leaves_the_open_one_alone() -> None:
    roster = Roster(eager=True)
    roster.decide(0, 0.0)
    roster.ready(-1)
    roster.left(-1)
    roster.decide(0, 0.0)
    roster.ready(-2)
    roster.left(-1)
    assert roster.open == -2


# -- the page --------------------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 5), st.integers(0, 5), st.integers(1, 8))
def test_a_call_begins_or_is_taken_back_and_never_both(before: int, between: int, later: int) -> None:
    """The host begins some calls, the core takes back, the host goes on: each call is run by exactly one of them."""
    fd = os.memfd_create("page")
    os.ftruncate(fd, Page.SIZE)
    host, core = Page(fd), Page(fd)
    assert all(host.may_begin(number) for number in range(1, before + 1))
    begun = core.take_back()
    assert begun == before and core.barred == before + 1
    assert not any(host.may_begin(number) for number in range(begun + 1, begun + between + later + 1))
    for page in (host, core):
        page.close()
    os.close(fd)


# -- words -----------------------------------------------------------------------------------------------------------------------------

finite = st.floats(0, 1e12)
hosted_replies = st.one_of(
    st.builds(Succeeded, st.binary()),
    st.builds(Failed, st.builds(TaskError, type=st.text(), message=st.text()), st.lists(st.text()).map(tuple)),
    st.builds(RetryAsked, st.none() | finite, st.none() | finite, st.none() | st.integers(0, 9)),
    st.builds(Rejected, st.text(), st.text()),
    st.builds(TimedOut, finite, finite, st.text(), finite, finite, st.just(()), st.booleans()),
    st.builds(Stopped, st.sampled_from(StopReason), st.booleans()),
)


@given(hosted_replies)
def test_a_reply_arrives_as_it_was_sent(outcome: Succeeded | Failed | RetryAsked | Rejected | TimedOut | Stopped) -> None:
    assert of_hosted_reply(*pack_reply(outcome)) == outcome


def test_a_host_cannot_report_its_own_crash() -> None:
    with pytest.raises(TypeError):
        pack_reply(Crashed())


@given(st.integers(0, 255), st.binary(max_size=30))
def test_bytes_that_are_no_reply_are_garbage_or_a_reply(tag: int, payload: bytes) -> None:
    try:
        of_hosted_reply(tag, payload)
    except Garbage:
        return
    assert tag <= 5


@given(finite, finite, st.binary())
def test_a_hosted_call_arrives_as_it_was_sent(sent_at: float, heartbeat: float, payload: bytes) -> None:
    told = CallFrame(1, True, 2.0, inf, b"definition", "title", (), payload)
    assert unpack_hosted(pack_hosted(sent_at, heartbeat, told)) == (sent_at, heartbeat, told)

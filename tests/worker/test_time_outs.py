"""A time-out is the same facts in its ending, notice, error and event; and the event's form in a broker."""

from __future__ import annotations

import inspect
import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_iso import TimeoutException
from stem_iso.events import TaskEvent, TimeoutEvent, decode, encode
from stem_iso.isolate.interfaces import LimitNotice
from stem_iso.isolate.pool.reply import error_of
from stem_iso.outcome import Overrun, TimedOut

FACTS = Overrun.__struct_fields__
OF = {"at": 1.5, "worker_id": "w", "task_id": "t", "name": "n", "queue": "q", "run": 0, "attempt": 1}
seconds = st.floats(0, 1e9)
killed = st.lists(st.tuples(st.integers(1, 1 << 22), st.text())).map(tuple)
endings = st.builds(TimedOut, seconds, seconds, st.text(), seconds, seconds, killed, st.booleans())
soft = st.builds(LimitNotice, seconds, seconds, st.text(), level=st.just("soft"), title=st.text())


class OldTimeoutEvent(TaskEvent, frozen=True, kw_only=True, tag="timeout"):
    """As a listener of an older version has it."""

    level: str
    limit: float
    elapsed: float
    stack: str = ""
    signalled_at: float | None = None
    dead_at: float | None = None
    killed: tuple[tuple[int, str], ...] = ()
    silent: bool = False


def test_a_fact_that_the_ending_has_the_error_and_the_event_have_under_the_same_name() -> None:
    assert tuple(inspect.signature(TimeoutException).parameters) == FACTS == TimedOut.__struct_fields__
    assert TimeoutEvent.__struct_fields__[-len(FACTS) :] == FACTS
    assert TimeoutException(1.0, 0.0).args == msgspec.structs.astuple(TimedOut(1.0, 0.0))


@given(endings)
def test_the_error_says_what_the_ending_says_here_and_in_another_process(ending: TimedOut) -> None:
    error = error_of(ending)
    assert isinstance(error, TimeoutException)
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert {name: getattr(one, name) for name in FACTS} == ending.facts()
        assert one.args == msgspec.structs.astuple(ending)


@given(endings, st.text())
def test_the_notice_says_what_the_ending_says(ending: TimedOut, title: str) -> None:
    notice = LimitNotice.of(ending, title)
    assert (notice.level, notice.title, notice.facts()) == ("hard", title, ending.facts())


@given(soft | endings.map(LimitNotice.of))
def test_old_and_new_listeners_read_the_event_of_old_and_new_workers(notice: LimitNotice) -> None:
    new, old = (kind(level=notice.level, **notice.facts(), **OF) for kind in (TimeoutEvent, OldTimeoutEvent))
    assert encode(new) == msgspec.msgpack.encode(old)
    assert msgspec.msgpack.decode(encode(new), type=OldTimeoutEvent) == old
    assert decode(msgspec.msgpack.encode(old)) == new


@pytest.mark.parametrize(
    ("notice", "fields"),
    [
        (
            LimitNotice(1.0, 1.2, "here", level="soft"),
            {"level": "soft", "signalled_at": None, "dead_at": None, "killed": [], "silent": False},
        ),
        (
            LimitNotice.of(TimedOut(1.0, 1.2, "here", 0.1, 0.2, ((7, "it"),), True)),
            {"level": "hard", "signalled_at": 0.1, "dead_at": 0.2, "killed": [[7, "it"]], "silent": True},
        ),
    ],
)
def test_in_a_broker_the_event_is_one_flat_map(notice: LimitNotice, fields: dict[str, object]) -> None:
    event = TimeoutEvent(level=notice.level, **notice.facts(), **OF)
    assert msgspec.msgpack.decode(encode(event)) == {"type": "timeout", **OF, "limit": 1.0, "elapsed": 1.2, "stack": "here", **fields}

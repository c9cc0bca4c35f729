"""Schedules and the workers that fire them: at their time, once, and as operators and code want it."""

from __future__ import annotations

import importlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stem_iso import BrokerUnavailable, InvalidOptions, Stem, TaskContext, UnknownSchedule, Worker, WorkerEventType, chord
from stem_iso.brokers.base import ScheduleRecord
from stem_iso.task.schedule import next_due
from stem_iso.testing import assert_enqueued, eventually
from tests.worker.conftest import Begin

ROOT = Path(__file__).parents[2]
DAY = 86_400.0


@pytest.fixture
def app(app: Stem) -> Stem:
    """Each run of "note" says for when it was due, and when it began."""
    app.notes = []  # type: ignore[attr-defined]

    @app.task(name="note")
    def note(context: TaskContext, text: str = "") -> str:
        app.notes.append((context.headers.get("schedule"), context.headers.get("due"), time.time()))  # type: ignore[attr-defined]
        return text

    return app


def notes(app: Stem) -> list[tuple[str, float, float]]:
    """Schedule, due time, begin."""
    return [(name, datetime.fromisoformat(due).timestamp(), at) for name, due, at in app.notes]  # type: ignore[attr-defined]


def database(app: Stem) -> str:
    return app.open_broker().url.removeprefix("sqlite:///")


def set_back(app: Stem, name: str, due: float) -> None:
    """As if nobody had been there to fire since then."""
    with closing(sqlite3.connect(database(app), timeout=10)) as connection, connection:
        assert connection.execute("UPDATE schedule SET due = ? WHERE name = ?", (due, name)).rowcount == 1


def record(app: Stem, name: str) -> ScheduleRecord:
    (found,) = [each for each in app.open_broker().schedules() if each.name == name]
    return found


def recent_midnight() -> float:
    """The last one that is well in the past."""
    return (time.time() - 60) // DAY * DAY


# -- firing ----------------------------------------------------------------------------------------------------------------------------


def test_every_due_time_is_fired_once_and_on_time(app: Stem, begin: Begin) -> None:
    app.schedule("tick", app.tasks["note"].s(), every=0.2, catch_up="all")
    begin(app)
    eventually(lambda: len(notes(app)) >= 6)
    dues = [due for _, due, _ in notes(app)]
    assert dues == pytest.approx([dues[0] + 0.2 * number for number in range(len(dues))])
    assert sorted(at - due for _, due, at in notes(app))[len(dues) // 2] < 0.1
    assert all(at >= due for _, due, at in notes(app))


def test_a_chord_is_fired_again_and_again_and_by_hand(app: Stem, begin: Begin) -> None:
    note = app.tasks["note"]
    received: list[list[str]] = []

    @app.task(name="collect")
    def collect(texts: list[str]) -> list[str]:
        received.append(texts)
        return texts

    handle = app.schedule("album", chord([note.s(text="a"), note.s(text="b")], collect.after()), every=0.3)
    assert handle.info().tasks == ["note", "note", "collect"]
    begin(app)
    eventually(lambda: len(received) >= 2)
    handle.pause()
    assert handle.trigger().result(timeout=30) == ["a", "b"]
    assert all(texts == ["a", "b"] for texts in received)


def test_what_another_process_schedules_is_picked_up_by_workers_that_run(app: Stem, begin: Begin) -> None:
    begin(app)
    other = Stem(app.broker)
    put_at = time.time()
    other.schedule("tick", other.task_named("note").s(), every=0.1)
    eventually(lambda: notes(app))
    assert notes(app)[0][2] - put_at < 3
    assert other.schedules["tick"].info().last_fired is not None
    other.close()


def test_a_worker_that_serves_other_queues_fires_too(app: Stem, begin: Begin) -> None:
    app.schedule("tick", app.tasks["note"].using(queue="slow", priority=7).s("x"), every=0.1)
    begin(app, queues=["default"])
    envelope = eventually(lambda: _enqueued(app, "note"))
    assert (envelope.queue, envelope.priority, envelope.headers["schedule"]) == ("slow", 7, "tick")
    assert notes(app) == []


def _enqueued(app: Stem, name: str) -> Any:
    try:
        return assert_enqueued(app, name)
    except AssertionError:
        return None


def test_delay_and_expiry_count_from_the_firing(app: Stem, begin: Begin) -> None:
    app.schedule("tick", app.tasks["note"].using(delay=1000, expires=2000, headers={"by": "me"}).s(), every=DAY)
    set_back(app, "tick", recent_midnight())
    before = time.time()
    begin(app)
    envelope = eventually(lambda: _enqueued(app, "note"))
    assert before <= envelope.enqueued_at <= time.time()
    assert envelope.not_before == pytest.approx(envelope.enqueued_at + 1000)
    assert envelope.expires == pytest.approx(envelope.enqueued_at + 2000)
    assert envelope.headers["by"] == "me"


def test_a_unique_task_that_still_waits_is_not_enqueued_again(app: Stem, begin: Begin) -> None:
    app.schedule("tick", app.tasks["note"].using(unique=True, queue="slow").s(), every=0.1)
    begin(app, queues=["default"])
    first = eventually(lambda: app.schedules["tick"].info().last_fired)
    eventually(lambda: app.schedules["tick"].info().last_fired != first)
    (count,) = app.open_broker().queues()
    assert (count.name, count.queued) == ("slow", 1)


def test_a_schedule_that_this_worker_cannot_fire_is_reported_once_and_stops_nobody(app: Stem, begin: Begin) -> None:
    app.open_broker().put_schedule(ScheduleRecord(name="broken", revision="1", body=b"\xc1", due=0.0))
    app.schedule("tick", app.tasks["note"].s(), every=0.1)
    _, recorder = begin(app)
    eventually(lambda: len(notes(app)) >= 4)
    recorder.wait(WorkerEventType.ERROR)
    messages = [event.message for event in recorder.of(WorkerEventType.ERROR)]
    assert len(messages) == 1 and "'broken'" in messages[0]
    broken, tick = app.schedules.infos()
    assert "cannot be read here" in broken.when and tick.when == "every 0.1 s"
    app.schedules["broken"].remove()


def test_a_burst_worker_does_not_wait_for_schedules(app: Stem) -> None:
    app.schedule("tick", app.tasks["note"].s(), every=DAY)
    handle = app.enqueue("note", {"text": "x"}, headers={"schedule": "by hand", "due": "2026-01-01"})
    with Worker(app, burst=True, concurrency=1) as worker:
        worker.join(20)
    assert handle.result(timeout=0) == "x"


def test_schedules_work_in_memory(begin: Begin) -> None:
    app = Stem("memory://")
    ran: list[int] = []
    app.task(name="note")(lambda: ran.append(1))
    handle = app.schedule("tick", app.tasks["note"].s(), every=0.1)
    begin(app)
    eventually(lambda: len(ran) >= 2)
    handle.remove()
    app.close()


# -- after a time without workers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("catch_up", "days"), [("latest", [0]), ("all", [-2, -1, 0]), ("none", [])])
def test_what_was_missed_without_workers(app: Stem, begin: Begin, catch_up: str, days: list[int]) -> None:
    app.schedule("daily", app.tasks["note"].s(), every=DAY, catch_up=catch_up)
    midnight = recent_midnight()
    set_back(app, "daily", midnight - 2 * DAY)
    begin(app)
    eventually(lambda: record(app, "daily").due > time.time())
    eventually(lambda: len(notes(app)) == len(days))
    assert [due for _, due, _ in notes(app)] == [midnight + day * DAY for day in days]


def test_one_that_is_late_says_so(app: Stem) -> None:
    handle = app.schedule("daily", app.tasks["note"].s(), every=DAY)
    assert handle.info().late == 0
    set_back(app, "daily", recent_midnight())
    assert handle.info().late >= 60
    handle.pause()
    assert (handle.info().late, handle.next_due) == (0, None)


# -- what operators do -----------------------------------------------------------------------------------------------------------------


def test_pause_resume_trigger_remove(app: Stem, begin: Begin) -> None:
    handle = app.schedule("daily", app.tasks["note"].s("by hand"), every=timedelta(days=1), catch_up="all")
    begin(app)
    assert handle.trigger().result(timeout=10) == "by hand"
    ((name, due, at),) = notes(app)
    assert name == "daily" and 0 <= at - due < 5
    handle.pause()
    set_back(app, "daily", recent_midnight() - 2 * DAY)
    assert handle.trigger().result(timeout=10) == "by hand"
    handle.resume()
    assert handle.next_due == datetime.fromtimestamp(time.time() // DAY * DAY + DAY, UTC)  # what it missed is not made up
    assert handle.trigger().result(timeout=10) == "by hand"
    assert len(notes(app)) == 3
    assert [each.name for each in app.schedules] == ["daily"]
    app.schedules["daily"].remove()
    assert list(app.schedules) == []
    with pytest.raises(UnknownSchedule, match="'daily'"):
        handle.pause()


def test_what_became_of_the_last_firings_is_known_and_of_those_by_hand_it_is_not(app: Stem, begin: Begin) -> None:
    @app.task(name="fail", max_retries=0)
    def fail(texts: list[str]) -> None:
        raise ValueError(texts)

    note = app.tasks["note"]
    tick = app.schedule("tick", note.s(), every=0.2)
    album = app.schedule("album", chord([note.s(text="a"), note.s(text="b")], fail.after()), every=0.3)
    app.schedule("daily", note.s(), every=timedelta(days=1))
    begin(app)

    def states(name: str) -> list[str]:
        (info,) = [each for each in app.schedules.infos(outcomes=True) if each.name == name]
        return [one.state for one in info.outcomes]

    eventually(lambda: len(notes(app)) > 20)
    by_hand = [tick.trigger().id, app.schedules["daily"].trigger().id]
    tick.pause()
    album.pause()
    set_back(app, "tick", time.time() + DAY)  # as if it had been paused for a day
    eventually(lambda: states("tick") == ["succeeded"] * 5)
    eventually(lambda: states("album") == ["failed"] * 5)
    assert states("daily") == []
    (found,) = [each.outcomes for each in app.schedules.infos(outcomes=True) if each.name == "tick"]
    fired = sorted({due for name, due, _ in notes(app) if name == "tick"})
    dues = [one.due.timestamp() for one in found if one.due is not None]
    assert dues == sorted(dues, reverse=True) and set(dues) <= set(fired)
    assert not {one.id for one in found} & set(by_hand)
    assert all(app.handle(one.id).status().finished_at == one.ended_at for one in found)


def test_an_unknown_name_says_which_was_meant(app: Stem) -> None:
    app.schedule("nightly", app.tasks["note"].s(), every=DAY)
    with pytest.raises(UnknownSchedule, match="no schedule 'nihgtly' is in the broker; did you mean 'nightly'"):
        app.schedules["nihgtly"]


def test_a_schedule_that_is_put_again_keeps_its_due_time_unless_it_changed(app: Stem) -> None:
    call = app.tasks["note"]
    app.schedule("daily", call.s("x"), every=DAY)
    set_back(app, "daily", 5 * DAY)
    app.schedule("daily", call.s("x"), every=DAY)
    assert record(app, "daily").due == 5 * DAY
    app.schedule("daily", call.s("y"), every=DAY)
    assert record(app, "daily").due > time.time()


# -- declared in code ------------------------------------------------------------------------------------------------------------------

MODULE = """
from stem_iso import Stem

app = Stem(broker={broker!r})

@app.task(name="work", isolate=True)
def work(text: str) -> str:
    return text

{schedules}
"""
Import = Callable[[str], Any]


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Import]:
    """The application of a module, as it is after each edit of its schedules."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(schedules: str) -> Any:
        (tmp_path / "declaring.py").write_text(MODULE.format(broker=f"sqlite:///{tmp_path}/jobs.db", schedules=schedules))
        sys.modules.pop("declaring", None)
        importlib.invalidate_caches()
        return importlib.import_module("declaring").app

    yield load
    sys.modules.pop("declaring", None)


def started(app: Stem) -> None:
    with Worker(app, concurrency=1, spares=0):
        eventually(lambda: not app.schedules.declared() or list(app.schedules))
        eventually(lambda: app.open_broker().workers())


def due_of(app: Stem) -> dict[str, float]:
    return {each.name: each.due for each in app.open_broker().schedules()}


def test_an_import_opens_nothing_and_a_worker_brings_what_it_declares(imported: Import, tmp_path: Path) -> None:
    app = imported("handle = app.schedule('a', work.s('x'), every=86400)")
    assert not (tmp_path / "jobs.db").exists()
    with pytest.raises(UnknownSchedule, match="the next worker of the application that starts brings it"):
        app.schedules["a"]
    started(app)
    (info,) = app.schedules.infos()
    assert (info.name, info.tasks, info.when, info.owner) == ("a", ["work"], "every 86400 s", "declaring:app")
    assert info.next_due is not None and info.next_due.timestamp() == next_due(_declared(app), time.time())


def _declared(app: Stem) -> Any:
    from stem_iso.task.schedule import decode_schedule

    return decode_schedule(app.schedules.declared()[0].body)


def test_a_restart_keeps_plans_and_pauses_and_takes_away_what_the_code_no_longer_declares(imported: Import) -> None:
    lines = [f"app.schedule({name!r}, work.s('x'), cron='0 3 * * *', timezone='Europe/Berlin')" for name in ("kept", "changed", "gone")]
    app = imported("\n".join(lines))
    started(app)
    app.schedule("by a program", app.tasks["work"].s("x"), every=DAY)
    app.schedules["changed"].pause()
    app.schedules["kept"].pause()
    for name in ("kept", "changed"):
        set_back(app, name, 5.0)
    app.close()

    app = imported("\n".join(lines[:2]).replace("'changed', work.s('x')", "'changed', work.s('y')"))
    started(app)
    eventually(lambda: set(due_of(app)) == {"kept", "changed", "by a program"})
    assert due_of(app)["kept"] == 5.0 and due_of(app)["changed"] > time.time()
    assert record(app, "kept").paused and record(app, "changed").paused


def test_arguments_without_an_order_of_their_own_are_no_change() -> None:
    program = """
from stem_iso import Stem
app = Stem("memory://")
@app.task
def work(names: set[str]) -> None: ...
app.schedule("a", work.s({str(number) for number in range(40)}), every=5)
print(app.open_broker().schedules()[0].revision)
"""
    printed = {_run(program, PYTHONHASHSEED=seed) for seed in ("1", "2", "3")}
    assert len(printed) == 1


def _run(program: str, **env: str) -> str:
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin", **env}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_program_puts_at_once_and_its_isolates_do_not_put_again(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        f"""
from stem_iso import Stem, Worker

app = Stem("sqlite:///{tmp_path}/jobs.db")

@app.task(isolate=True)
def names() -> list[str]:
    return [each.name for each in app.schedules]

app.schedule("a", names.s(), every=86400)

if __name__ == "__main__":
    app.schedules["a"].remove()
    with Worker(app, concurrency=1):
        print(names.enqueue().result(timeout=20))
"""
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_an_application_may_be_declared_by_a_function_that_a_module_calls(imported: Import) -> None:
    app = imported("def declare():\n    app.schedule('a', work.s('x'), every=5)\ndeclare()")
    assert [each.name for each in app.schedules.declared()] == ["a"]


def test_the_same_name_twice_in_code_is_a_slip(imported: Import) -> None:
    with pytest.raises(InvalidOptions, match="schedule 'a' is declared twice"):
        imported("app.schedule('a', work.s('x'), every=5)\napp.schedule('a', work.s('y'), every=5)")


# -- what cannot be meant --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": datetime(2030, 1, 1)}, "eta"),
        ({"task_id": "x"}, "task_id"),
        ({"expires": datetime(2030, 1, 1)}, "expires"),
    ],
)
def test_options_that_mean_one_moment_are_refused(app: Stem, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptions, match=f"schedule 'a': {message}"):
        app.schedule("a", app.tasks["note"].using(**options).s(), every=5)
    assert list(app.schedules) == []


def test_what_is_no_call_and_what_cannot_be_sent_is_refused(app: Stem) -> None:
    with pytest.raises(InvalidOptions, match=r"give task\.s\(\.\.\.\)"):
        app.schedule("a", app.tasks["note"], every=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="argument 'text' cannot be sent"):
        app.schedule("a", app.tasks["note"].s(object()), every=5)


def test_a_broker_that_is_away_raises_in_the_program(tmp_path: Path) -> None:
    app = Stem(f"sqlite:///{tmp_path}/nowhere/jobs.db")
    with pytest.raises(BrokerUnavailable, match="there is no folder"):
        app.schedule("a", app.task_named("note").s(), every=5)

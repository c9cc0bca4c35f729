"""Files that are not there, and files of an earlier version: whoever looks reads what there is, and changes nothing."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from stem_iso.brokers.base import DeadFilter
from stem_iso.brokers.operations import LISTED_STATES, Pauses, TaskFilter
from stem_iso.brokers.sqlite import schema
from stem_iso.brokers.sqlite.broker import SqliteBroker
from stem_iso.brokers.url import open_broker
from stem_iso.errors import BrokerUnavailable
from stem_iso.testing.contract.schedules import schedule
from stem_iso.testing.contract.steps import counts, envelope, take_one
from tests.brokers.test_files import run


def earlier(path: Path, version: int = 1) -> None:
    """A database as this version left it, with one task that waits."""
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA auto_vacuum = INCREMENTAL")
    raw.execute("PRAGMA journal_mode = WAL")
    raw.executescript(schema.TABLES + "".join(schema.ADDED[step] for step in range(2, version + 1)))
    raw.execute(f"PRAGMA application_id = {schema.APPLICATION}")
    raw.execute(f"PRAGMA user_version = {version}")
    raw.execute("INSERT INTO task (id, name, queue, rank, state, run, attempt, enqueued) VALUES ('old', 'add', 'default', 5, 0, 0, 0, 1.0)")
    raw.commit()
    raw.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def test_looking_where_no_database_is_makes_none(path: Path) -> None:
    broker = open_broker(f"sqlite:///{path}")
    assert broker.queues() == broker.workers() == broker.schedules() == broker.dead_letters(DeadFilter()) == []
    assert broker.status(["any"]) == [None]
    assert broker.purge("default") == broker.purge_dead(DeadFilter()) == 0
    assert list(path.parent.iterdir()) == []
    other = open_broker(f"sqlite:///{path}")
    other.publish([envelope()])
    assert counts(broker)[0] == 1, "a file that comes later is seen"
    broker.close(), other.close()


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_looking_at_an_earlier_version_reads_it_and_leaves_it_as_it_is(path: Path, version: int) -> None:
    earlier(path, version)
    before = path.read_bytes()
    broker = open_broker(f"sqlite:///{path}")
    assert [(queue.name, queue.queued) for queue in broker.queues()] == [("default", 1)]
    [found] = broker.status(["old"])
    assert found is not None and (found.name, found.state.value) == ("add", "queued")
    assert broker.workers() == broker.schedules() == []
    assert broker.tree("old") is None and broker.members("old") is None
    for states in (None, LISTED_STATES, ["queued"]):
        assert [each.record.id for each in broker.list_tasks(TaskFilter(states=states), 10).tasks] == ["old"]
    assert broker.list_tasks(TaskFilter(states=["running"]), 10).tasks == []
    assert [(each.name, each.by_priority) for each in broker.queue_states()] == [("default", {4: 1})]
    assert broker.counts(0, 1 << 30) == broker.limit_states() == broker.actions() == broker.replies("c") == broker.commands("w", 0) == []
    assert broker.paused() == Pauses(frozenset(), frozenset())
    with pytest.raises(BrokerUnavailable, match="run `stem-iso migrate`"):
        next(broker.listen(0.1))
    broker.close()
    assert path.read_bytes() == before
    assert {one.name for one in path.parent.iterdir()} == {path.name}


def test_a_view_sees_what_another_brings_up_to_date_meanwhile(path: Path) -> None:
    earlier(path)
    looking, writing = open_broker(f"sqlite:///{path}"), open_broker(f"sqlite:///{path}")
    assert looking.schedules() == []
    writing.put_schedule(schedule("daily"))
    assert [record.name for record in looking.schedules()] == ["daily"]
    looking.close(), writing.close()


@pytest.mark.parametrize("first", ["look", "write"])
@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_a_write_brings_an_earlier_version_up_to_date(path: Path, first: str, version: int) -> None:
    earlier(path, version)
    broker = open_broker(f"sqlite:///{path}")
    if first == "look":
        assert counts(broker)[0] == 1
    broker.publish([envelope(id="new")])
    assert [each.record.id for each in broker.list_tasks(TaskFilter(), 10).tasks] == ["new", "old"]
    assert [each.counts for each in broker.counts(0, 1 << 30)] == [{"enqueued": 1}], "what was there before is not counted"
    broker.close()
    raw = sqlite3.connect(path)
    assert raw.execute("PRAGMA user_version").fetchone() == (schema.SHOWN,)
    assert raw.execute("SELECT value FROM fact WHERE name = 'schema'").fetchone() == (str(schema.VERSION),)
    assert raw.execute("SELECT id FROM task ORDER BY seq").fetchall() == [("old",), ("new",)]
    raw.close()


def fact(path: Path, statement: str, *values: str) -> None:
    raw = sqlite3.connect(path)
    assert raw.execute(statement, values).rowcount == 1
    raw.commit()
    raw.close()


def test_an_older_process_reads_the_version_that_it_knows(path: Path) -> None:
    """It refuses a file whose `user_version` is above its own, and a deployment lets it go on."""
    broker = open_broker(f"sqlite:///{path}")
    broker.publish([envelope()])
    broker.close()
    raw = sqlite3.connect(path)
    assert raw.execute("PRAGMA user_version").fetchone() == (2,)
    raw.close()


def test_a_version_above_this_one_is_refused_where_the_file_says_it_truly(path: Path) -> None:
    broker = open_broker(f"sqlite:///{path}")
    broker.publish([envelope()])
    broker.close()
    fact(path, "UPDATE fact SET value = '99' WHERE name = 'schema'")
    with pytest.raises(BrokerUnavailable, match=r"newer stem_iso .schema 99"):
        open_broker(f"sqlite:///{path}").queues()


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM fact WHERE name = 'schema'",
        "UPDATE fact SET value = 'x' WHERE name = 'schema'",
        "DELETE FROM fact WHERE name = 'counted'",
    ],
)
def test_a_file_that_has_lost_its_facts_goes_on(path: Path, damage: str) -> None:
    broker = open_broker(f"sqlite:///{path}")
    broker.publish([envelope(id="a")])
    broker.close()
    fact(path, damage)
    broker.publish([envelope(id="b")])
    assert [each.record.id for each in broker.list_tasks(TaskFilter(states=["queued"]), 10).tasks] == ["b", "a"]
    broker.add_counts([])
    assert len(broker.counts(0, 1 << 30)) <= 1
    broker.close()


def test_migrate_names_the_true_versions(path: Path) -> None:
    earlier(path, 2)
    broker = open_broker(f"sqlite:///{path}")
    assert isinstance(broker, SqliteBroker)
    assert [broker.migrate(), broker.migrate()] == [(2, schema.VERSION), (schema.VERSION, schema.VERSION)]
    broker.close()


def test_a_fork_of_whoever_looks_has_a_view_of_its_own(path: Path) -> None:
    earlier(path)
    program = """
import os, sys
from stem_iso.brokers.url import open_broker
broker = open_broker(sys.argv[1])
os.write(1, b"%d\\n" % len(broker.queues()))
child = os.fork()
os.write(1, b"%d\\n" % len(broker.queues()))
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    assert run(program, f"sqlite:///{path}") == "1\n1\n1\n"


def test_an_empty_file_is_an_empty_queue(path: Path) -> None:
    path.touch()
    broker = open_broker(f"sqlite:///{path}")
    assert broker.queues() == broker.schedules() == [] and broker.status(["any"]) == [None]
    assert path.read_bytes() == b""
    broker.publish([envelope()])
    assert take_one(broker)
    broker.close()


@pytest.mark.parametrize("version", range(schema.VERSION + 1))
def test_every_step_of_the_schema_can_be_laid_over_a_file(version: int) -> None:
    """Else `stem-iso queues` on a file of that version would have to refuse."""
    assert bool(schema.overlay(version)) == (version < schema.VERSION)


def test_a_step_that_does_more_cannot_be_laid_over_a_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier(path)
    monkeypatch.setitem(schema.ADDED, schema.VERSION, "UPDATE task SET run = 1")
    with pytest.raises(BrokerUnavailable, match=r"earlier version .schema 1.: run `stem-iso migrate`"):
        open_broker(f"sqlite:///{path}").queues()


def test_threads_that_look_share_one_view(path: Path) -> None:
    earlier(path)
    broker = open_broker(f"sqlite:///{path}")
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(counts(broker)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    broker.close()
    assert found == [1] * 4

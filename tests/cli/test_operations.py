"""What operators type: list, count, steer. Real workers where workers are to obey."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from contextlib import closing
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from stem_iso.brokers.base import WorkerInfo
from stem_iso.brokers.operations import Action
from stem_iso.brokers.url import open_broker
from stem_iso.client.action_log import operator
from stem_iso.testing import eventually
from stem_iso.testing.contract.steps import FAILURE, settle, take
from stem_iso.testing.contract.workers import info
from tests.cli.conftest import Folder
from tests.cli.test_damage import stem
from tests.servers.fixtures import broker_of

Run = Any
APP = ("-A", "jobs")


@pytest.fixture
def here(folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in the folder of `jobs.py`, in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(folder.path)
    monkeypatch.delitem(sys.modules, "jobs", raising=False)
    return lambda *command: stem(capsys, monkeypatch, *command)


def asked(here: Run, *command: str, code: int = 0) -> Any:
    """The one JSON value of a command."""
    got, out, err = here(*command, "--json")
    assert got == code, (out, err)
    return json.loads(out)


def sent(here: Run, name: str, *options: str, **args: Any) -> str:
    code, out, err = here("enqueue", name, *APP, "--args", json.dumps(args), *options)
    assert code == 0, err
    return str(out.strip())


def fail_all() -> None:
    """As a worker does whose handlers all raise."""
    broker = open_broker("sqlite:///stem_iso.db")
    for delivery in take(broker, 100):
        settle(broker, delivery, FAILURE)
    broker.close()


def test_tasks_are_listed_a_page_at_a_time(here: Run) -> None:
    known = [sent(here, "add", a=number) for number in range(5)]
    page = asked(here, "tasks", *APP, "--limit", "2")
    found = [task["id"] for task in page["tasks"]]
    assert page["tasks"][0]["args"]["a"] == 4 and page["tasks"][0]["state"] == "queued"
    while page["cursor"]:
        page = asked(here, "tasks", *APP, "--limit", "2", "--cursor", page["cursor"])
        found += [task["id"] for task in page["tasks"]]
    assert found == known[::-1]
    code, out, err = here("tasks", *APP, "--limit", "2", "--oldest-first")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == ["ID", known[0], known[1]]
    assert '{"a":0' in out and err.startswith("more: --cursor ")
    assert [task["args"]["a"] for task in asked(here, "tasks", *APP, "--text", "a=3", "--name", "a*")["tasks"]] == [3]
    assert asked(here, "tasks", "--since", "10m", "--until", "0s")["tasks"][0]["id"] == known[-1]
    assert asked(here, "tasks", "--until", "2026-01-31", "--state", "queued") == {"tasks": [], "cursor": None, "cut": {}}


def test_a_list_shows_the_beginning_of_what_is_long(here: Run) -> None:
    id = sent(here, "fail", text="x" * 9000)
    page = asked(here, "tasks", *APP)
    assert page["cut"] == {id: ["args"]}
    assert page["tasks"][0]["args"]["text"] == "x" * 2048 + "…"
    assert asked(here, "status", id, *APP)["args"]["text"] == "x" * 9000


def test_looking_makes_no_file(here: Run, folder: Folder) -> None:
    for command in (["tasks"], ["stats"], ["actions"], ["retry", "nothing"], ["run-now", "nothing"], ["bulk", "retry", "--all"]):
        here(*command)
    assert here("tasks")[1].startswith("no tasks: there is no database")
    assert here("health")[0] == 1
    assert [path.name for path in folder.path.iterdir() if path.name.startswith("stem_iso")] == []


@pytest.mark.parametrize(
    ("command", "code", "kind", "says"),
    [
        (["tasks", "--state", "faild"], 2, "InvalidOptions", "did you mean 'failed'"),
        (["tasks", "--limit", "0"], 2, "InvalidOptions", "limit: 0"),
        (["tasks", "--cursor", "nonsense"], 2, "InvalidOptions", "cursor: 'nonsense'"),
        (["tasks", "--since", "yesterday"], 2, "UsageError", "write 10m (ago), 2026-01-31"),
        (["tasks", "--since", "99999999999d"], 2, "UsageError", "is no date"),
        (["tasks", "--text", "cat"], 2, "UsageError", "-A names the application"),
        (["retry"], 2, "UsageError", "Missing argument"),
        (["retry", "nothing"], 1, "UnknownResult", "nothing"),
        (["run-now", "nothing"], 1, "UnknownResult", "nothing"),
        (["edit", "nothing", "--args", "{}"], 1, "UnknownResult", "nothing"),
        (["edit", "nothing"], 2, "UsageError", "--args"),
        (["bulk", "retry"], 2, "UsageError", "which?"),
        (["bulk", "retyr", "--all"], 2, "UsageError", "retyr"),
        (["queues", "pause"], 2, "UsageError", "which?"),
        (["queues", "pause", "a", "--task", "b"], 2, "UsageError", "not both"),
        (["control", "w1", "drian"], 2, "UsageError", "drian"),
        (["control", "w1", "concurrency", "many"], 2, "UsageError", "no whole number"),
        (["control", "w1", "concurrency"], 2, "InvalidOptions", "value: None"),
        (["control", "*", "kill", "7"], 2, "InvalidOptions", "name the worker"),
        (["stats", "--minutes", "0"], 2, "InvalidOptions", "minutes: 0"),
        (["health", "--max-age", "-1"], 2, "UsageError", "max-age"),
        (["health", "--broker", "sqlite:///no/such/folder/jobs.db"], 3, "BrokerUnavailable", "there is no folder"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_json_value(here: Run, command: list[str], code: int, kind: str, says: str) -> None:
    got, out, err = here(*command, "--json")
    assert (got, err) == (code, "")
    error = json.loads(out)["error"]
    assert error["type"] == kind and says in error["message"]


def test_failed_tasks_are_retried_and_others_refuse(here: Run) -> None:
    failed = [sent(here, "add", a=1), sent(here, "add", a=2)]
    fail_all()
    waits = sent(here, "add", a=3)
    assert asked(here, "retry", failed[0]) == [{"id": failed[0], "refused": None}]
    code, _, err = here("retry", failed[0])
    assert code == 1 and f"Error: task {failed[0]} does not run again: it has not ended yet" in err
    code, out, err = here("retry", failed[1], waits, "nothing")
    assert code == 1 and out == f"{failed[1]}  runs again\n" and waits in err and "no task has the id 'nothing'" in err
    answers = asked(here, "retry", failed[0], waits, code=1)
    assert [answer["id"] for answer in answers] == [failed[0], waits] and all(answer["refused"] for answer in answers)
    assert asked(here, "status", failed[1])["run"] == 1
    actions = asked(here, "actions")
    assert [(action["action"], action["target"]) for action in actions] == [("retry", failed[1]), ("retry", failed[0])]
    assert {action["by"] for action in actions} == {operator()}


def test_a_delayed_task_is_edited_and_run_now(here: Run) -> None:
    id = sent(here, "add", "--delay", "3600", a=1, b=5)
    assert here("edit", id, *APP, "--args", '{"a": 2, "b": "***"}')[:2] == (0, "run 1\n")
    assert here("run-now", id)[:2] == (0, f"{id}  is ready now\n")
    code, _, err = here("run-now", id)
    assert code == 1 and "it is not delayed" in err
    status = asked(here, "status", id, *APP)
    assert (status["args"], status["run"], status["not_before"]) == ({"a": 2, "b": 5}, 1, status["not_before"])
    code, _, err = here("edit", id, *APP, "--args", '{"a": "two"}')
    assert code == 2 and "argument 'a' must be int" in err
    assert asked(here, "edit", id, *APP, "--args", '{"a": 3}')["run"] == 2
    assert [action["action"] for action in asked(here, "actions")] == ["edit", "run-now", "edit"]


def test_a_bulk_counts_first_and_then_does_it(here: Run) -> None:
    for number in range(3):
        sent(here, "add", a=number)
    fail_all()
    sent(here, "add", a=7)
    assert here("bulk", "retry", *APP, "--state", "failed", "--dry-run")[:2] == (0, "3 match\n")
    assert here("bulk", "retry", *APP, "--name", "a*")[:2] == (0, "4 matched, 3 retried, 1 refused (1 active)\n")
    found = asked(here, "bulk", "revoke", "--all")
    assert {name: found[name] for name in ("matched", "done", "refused")} == {"matched": 4, "done": 4, "refused": 0}
    assert asked(here, "bulk", "delete", "--state", "cancelled")["done"] == 4
    assert asked(here, "tasks")["tasks"] == []
    assert [action["target"] for action in asked(here, "actions", "--limit", "2")] == ["state=cancelled", "all"]


def test_a_pause_holds_although_nobody_obeys_and_queues_show_it(here: Run) -> None:
    sent(here, "add", a=1)
    assert asked(here, "queues", "pause", "default", code=1) == {"acknowledged": [], "refused": {}, "silent": [], "texts": {}}
    code, _, err = here("queues", "pause", "--task", "add")
    assert code == 1 and err == "paused; it holds for workers that start later; nobody is there\n"
    [queue] = asked(here, "queues")
    assert (queue["name"], queue["queued"], queue["paused"], queue["served_by"]) == ("default", 1, True, [])
    assert queue["oldest_age"] >= 0 and queue["rate"] == 0 and queue["by_priority"] == {"0": 1}
    assert here("queues")[1].splitlines()[1].split()[-2:] == ["none", "paused"]
    assert here("queues", "resume", "default")[0] == 1
    assert asked(here, "queues")[0]["paused"] is False
    assert here("queues", "purge", "default")[1] == "1 cancelled\n"
    assert [action["action"] for action in asked(here, "actions")] == ["purge", "resume", "pause", "pause"]


def test_a_paused_task_is_not_forgotten(here: Run) -> None:
    sent(here, "add", a=1)
    assert "paused tasks" not in here("queues")[1]
    here("queues", "pause", "--task", "add")
    assert here("queues")[1].splitlines()[-1] == "paused tasks: add"
    code, out, err = here("queues", "--json")
    assert (code, len(json.loads(out)), err) == (0, 1, "paused tasks: add\n")
    here("queues", "resume", "--task", "add")
    assert "paused tasks" not in here("queues")[1]


def test_a_status_says_the_word_that_a_list_is_filtered_by(here: Run) -> None:
    id = sent(here, "add", "--delay", "60", a=1)
    assert "state:       delayed" in here("status", id)[1]
    here("run-now", id)
    assert "state:       queued" in here("status", id)[1]


def test_health_says_what_is_ill(here: Run) -> None:
    sent(here, "add", a=1)
    assert here("health", "--min-workers", "0")[0] == 0
    code, _, err = here("health")
    assert code == 1 and "0 of at least 1 workers answer" in err
    found = asked(here, "health", "--min-workers", "0", "--max-age", "0", code=1)
    assert found["healthy"] is False and "queue default has a task that has been ready for" in found["problems"][0]
    assert found["oldest_age"] > 0


def heard(seconds_ago: float) -> None:
    """A worker that serves the default queue was heard so long ago, by the clock of this machine."""
    broker = open_broker("sqlite:///stem_iso.db")
    broker.beat(info())
    broker.close()
    with closing(sqlite3.connect("stem_iso.db")) as file, file:
        at = time.time() - seconds_ago
        file.execute("UPDATE worker SET seen = ?, info = ?", (at, msgspec.msgpack.encode(replace(info(), seen_at=at))))


def test_a_worker_that_was_killed_is_not_well(here: Run) -> None:
    sent(here, "add", a=1)
    heard(seconds_ago=0)
    assert here("health")[0] == 0
    heard(seconds_ago=6)
    code, _, err = here("health", "--max-age", "0")
    assert code == 1 and "0 of at least 1 workers answer and take tasks (not heard: host:1)" in err
    assert "and nobody serves it" in err
    assert asked(here, "health", code=1)["workers"] == 0


def test_one_that_drains_lives_and_takes_nothing(here: Run) -> None:
    sent(here, "add", a=1)
    broker = open_broker("sqlite:///stem_iso.db")
    broker.beat(replace(info(), draining=True))
    broker.close()
    code, _, err = here("health")
    assert code == 1 and "0 of at least 1 workers answer and take tasks (draining: host:1)" in err


def test_a_worker_that_is_silent_for_five_seconds_is_nowhere_counted_as_alive(here: Run) -> None:
    broker = open_broker("sqlite:///stem_iso.db")
    broker.beat(WorkerInfo(id="w-1", boot="b", hostname="h", pid=1, queues=["default"], seats=1, spares=0))
    broker.close()
    assert asked(here, "workers")[0]["answers"] and " ago" in here("workers")[1]
    assert asked(here, "health")["workers"] == 1 and asked(here, "queues")[0]["served_by"] == ["w-1"]
    with sqlite3.connect("stem_iso.db") as file:
        file.execute("UPDATE worker SET seen = seen - 6")
    file.close()
    assert not asked(here, "workers")[0]["answers"] and "not for 6" in here("workers")[1]
    code, _, err = here("health")
    assert code == 1 and "0 of at least 1 workers answer" in err
    assert asked(here, "queues")[0]["served_by"] == []


@pytest.mark.parametrize(("word", "code", "state"), [("n", 130, "queued"), ("y", 0, "cancelled")])
def test_a_bulk_asks_on_a_terminal(folder: Folder, word: str, code: int, state: str) -> None:
    id = folder.enqueue("add", a=1)
    ours, theirs = os.openpty()
    process = folder.start("-c", "from stem_iso.cli import main; main()", "bulk", "revoke", "--name", "add", stdin=theirs)
    os.write(ours, f"{word}\n".encode())
    _, err = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == code and "revoke 1 task?" in err
    assert folder.json("status", id)["state"] == state


def test_a_bulk_that_nothing_matches_asks_nobody(folder: Folder) -> None:
    folder.enqueue("add", a=1)
    ours, theirs = os.openpty()
    process = folder.start("-c", "from stem_iso.cli import main; main()", "bulk", "revoke", "--name", "none", stdin=theirs)
    out, _ = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert (process.returncode, out) == (0, "0 match\n")


HOSTILE = "\x1b[2J\u202eevil\r\n"


def test_text_of_users_is_no_terminal_control(here: Run) -> None:
    sent(here, "fail", text=HOSTILE)
    broker = open_broker("sqlite:///stem_iso.db")
    broker.log_action(Action(at=1.0, by=HOSTILE, action=HOSTILE, target=HOSTILE, result=HOSTILE))
    broker.pause(HOSTILE)
    broker.close()
    for command in (["tasks", *APP], ["actions"], ["queues"], ["control", HOSTILE, "drain"], ["retry", HOSTILE], ["stats", HOSTILE]):
        _, out, err = here(*command)
        assert not {"\x1b", "\u202e", "\r"} & {*out, *err}, command


def test_figures_of_a_task(here: Run) -> None:
    assert "nothing happened within 60 min" in here("stats")[1]
    sent(here, "add", a=1)
    [found] = asked(here, "stats", "--minutes", "5")
    assert (found["name"], found["minutes"], sum(bucket["enqueued"] for bucket in found["buckets"])) == ("add", 5, 1)
    assert asked(here, "stats", "add", "--minutes", "5")["wait"] == {"p50": None, "p95": None, "p99": None}
    assert here("stats")[1].splitlines()[1].split()[:3] == ["add", "1", "0"]
    assert "new:" in here("stats", "add")[1] and not here("stats", "add")[2]
    assert "nothing happened to ad within 60 min" in here("stats", "ad")[2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_a_worker_obeys_and_its_tasks_are_counted(folder: Folder, kind: str) -> None:
    with broker_of(kind, folder.path) as url:
        folder.environ["STEM_ISO_BROKER"] = url
        obeyed(folder)


def obeyed(folder: Folder) -> None:
    with folder.working("-Q", "default", "-c", "1"):
        workers = eventually(lambda: folder.json("workers"), 60)
        id = workers[0]["id"]
        assert folder.json("queues", "pause", "default")["acknowledged"] == [id]
        folder.enqueue("add", a=1)
        assert folder.json("queues")[0]["queued"] == 1
        assert folder.json("queues", "resume", "default")["acknowledged"] == [id]
        eventually(lambda: folder.json("tasks", "--state", "succeeded")["tasks"], 60)
        assert folder.json("control", id, "concurrency", "2")["acknowledged"] == [id]
        refused = folder.json("control", id, "kill", "1", code=1)
        assert refused["acknowledged"] == [] and refused["refused"][id]
        gone = folder.stem("control", id[:-1], "drain")
        assert gone.returncode == 1 and f"did you mean {id!r}" in gone.stderr
        eventually(lambda: folder.json("stats", "add")["run"]["p50"], 60)
        stats = folder.json("stats", "add")
        assert sum(bucket["succeeded"] for bucket in stats["buckets"]) == 1
        assert folder.stem("health").returncode == 0
        assert folder.json("control", id, "log-level", "debug")["acknowledged"] == [id]
        assert folder.json("control", "*", "drain")["acknowledged"] == [id]
        eventually(lambda: folder.json("workers")[0]["draining"], 60)
        assert folder.stem("health").returncode == 1
        assert folder.json("control", id, "resume")["acknowledged"] == [id]
        hang = folder.enqueue("hang")
        assert folder.json("result", hang, "--timeout", "60", code=1)["error"]["type"].endswith("TimeoutException")
        eventually(lambda: sum(bucket["timed_out_hard"] for bucket in folder.json("stats", "hang")["buckets"]), 60)
        assert folder.json("control", "*", "stop")["acknowledged"] == [id]
        eventually(lambda: folder.json("workers") == [], 60)

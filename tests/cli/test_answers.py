"""What a command says of itself to a program: one JSON value, an exit code; and which place was asked."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from stem_iso.brokers.sqlite import schema
from stem_iso.brokers.url import open_broker
from stem_iso.outcome import TaskError, TaskState
from stem_iso.task.settlement import Finish
from stem_iso.testing.contract.steps import envelope, settle, take_one
from tests.brokers.test_old_files import earlier
from tests.cli.conftest import Folder
from tests.cli.test_damage import furnish, stem

Run = Any


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in an empty folder, in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    return lambda *command: stem(capsys, monkeypatch, *command)


def test_an_enqueue_that_nothing_has_a_place_for_says_where_it_went(here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, id, err = here("enqueue", "add")
    assert err.startswith(f"stored in sqlite:///{tmp_path}/stem_iso.db") and len(id.split()) == 1
    assert here("enqueue", "add", "--broker", "sqlite:///stem_iso.db")[2] == ""
    monkeypatch.setenv("STEM_ISO_BROKER", "sqlite:///stem_iso.db")
    assert here("enqueue", "add")[2] == ""


@pytest.mark.parametrize(
    ("command", "code", "kind", "says"),
    [
        (["status", "nothing"], 1, "UnknownResult", "nothing"),
        (["result", "nothing"], 1, "UnknownResult", "nothing"),
        (["revoke", "nothing"], 1, "UnknownResult", "nothing"),
        (["dlq", "show", "nothing"], 1, "UnknownResult", "nothing"),
        (["dlq", "replay", "nothing"], 1, "UnknownResult", "nothing"),
        (["dlq", "purge", "nothing", "--yes"], 1, "UnknownResult", "1 of the ids"),
        (["schedule", "pause", "nothing"], 1, "UnknownSchedule", "nothing"),
        (["queues", "--broker", ""], 2, "InvalidOptions", "broker '' is empty"),
        (["queues", "--broker", "redis://localhost:99999"], 2, "InvalidOptions", "from 1 to 65535"),
        (["queues", "-A", ""], 2, "InvalidOptions", "module:app"),
        (["qeues"], 2, "UsageError", "did you mean 'queues'"),
        (["status"], 2, "UsageError", "Missing argument"),
        (["dlq", "replay"], 2, "UsageError", "--all"),
        (["enqueue", "add", "--args", "[1]"], 2, "UsageError", "object of parameter names"),
        (["enqueue", "add", "--timeout", "1"], 2, "UsageError", "--timeout is for --wait"),
        (["queues", "--broker", "sqlite:///no/such/folder/jobs.db"], 3, "BrokerUnavailable", "there is no folder"),
    ],
)
def test_an_error_is_one_json_value_and_makes_no_file(
    here: Run, tmp_path: Path, command: list[str], code: int, kind: str, says: str
) -> None:
    got, out, err = here(*command, "--json")
    assert (got, err) == (code, "")
    error = json.loads(out)
    assert list(error) == ["error"] and list(error["error"]) == ["type", "message"]
    assert error["error"]["type"] == kind and says in error["error"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_a_wait_that_runs_out_is_told_from_a_failure(here: Run, tmp_path: Path) -> None:
    for form in ([], ["--json"]):
        code, out, err = here("enqueue", "add", "--wait", "--timeout", "0", *form)
        assert code == 4 and "has not ended within 0 s" in (out if form else err)
    assert json.loads(out)["error"]["type"] == "TimeoutError"
    broker = open_broker("sqlite:///stem_iso.db")
    for plan, code in (
        (Finish(TaskState.FAILED, error=TaskError(type="builtins.ValueError", message="no")), 1),
        (Finish(TaskState.CANCELLED, reason="revoked"), 1),
        (Finish(TaskState.SUCCEEDED, result=b"\x2a"), 0),
    ):
        broker.purge("default")
        broker.publish([envelope()])
        delivery = take_one(broker)
        settle(broker, delivery, plan)
        assert here("result", delivery.receipt.id, "--timeout", "9")[0] == code
    broker.close()


def test_queues_say_which_place_was_asked(here: Run, tmp_path: Path) -> None:
    assert here("queues") == (
        0,
        f"all queues are empty: there is no database {tmp_path}/stem_iso.db; the first enqueue, or a worker, makes it\n",
        "",
    )
    code, out, err = here("queues", "--json")
    assert (code, out) == (0, "[]\n") and f"{tmp_path}/stem_iso.db" in err
    assert "nothing to migrate" in here("migrate")[1]
    assert list(tmp_path.iterdir()) == []
    here("enqueue", "add")
    here("queues", "purge", "default")
    assert here("queues")[1].splitlines()[1].split()[:5] == ["default", "0", "0", "0", "0"]  # it was used


def test_looking_leaves_an_earlier_version_alone_and_migrate_brings_it_up(here: Run, tmp_path: Path) -> None:
    path = tmp_path / "stem_iso.db"
    earlier(path)
    before = path.read_bytes()
    for command in (["queues"], ["status", "old"], ["workers"], ["dlq", "list"], ["schedule", "list"], ["stats"], ["actions"]):
        assert here(*command)[0] == 0
    assert "old" in here("tasks")[1] and here("health", "--min-workers", "0")[0] == 1  # it is old
    assert here("result", "old", "--timeout", "0")[0] == 4
    code, _, err = here("events")
    assert code == 3 and "run `stem-iso migrate`" in err and len(err.splitlines()) == 1
    assert path.read_bytes() == before
    assert json.loads(here("migrate", "--json")[1]) == {"migrated": True, "from": 1, "to": schema.VERSION}
    assert "is up to date" in here("migrate")[1]
    raw = sqlite3.connect(path)
    assert raw.execute("PRAGMA user_version").fetchone() == (schema.SHOWN,)
    raw.close()


def test_replay_of_some_that_are_not_there_is_one_value(here: Run) -> None:
    furnish("sqlite:///stem_iso.db")
    code, out, _ = here("dlq", "replay", "died", "nothing", "--json")
    assert code == 1
    assert [(each["id"], each["refused"]) for each in json.loads(out)] == [("died", None), ("nothing", "no dead letter has this id")]


def test_a_misspelt_task_is_refused_where_the_application_is_loaded(folder: Folder) -> None:
    wrong = folder.stem("enqueue", "ad", "-A", "jobs")
    assert wrong.returncode == 2 and "jobs has no task 'ad'; did you mean 'add'?" in wrong.stderr and wrong.stdout == ""
    assert not (folder.path / "stem_iso.db").exists()
    folder.write("more.py", 'from jobs import app\n@app.task(name="more")\ndef more() -> None: ...\n')
    folder.environ |= {"STEM_ISO_APP": "jobs:app", "STEM_ISO_INCLUDE": "more"}
    assert folder.json("enqueue", "mor", code=2)["error"]["type"] == "UnknownTask"
    assert folder.json("enqueue", "more")["name"] == "more", "the modules that a worker includes are known"
    assert folder.json("enqueue", "elsewhere", "--broker", "sqlite:///jobs.db")["name"] == "elsewhere"


def test_the_package_is_a_command(folder: Folder) -> None:
    done = folder.run("-m", "stem_iso", "enqueue", "add", "-A", "jobs", "--args", '{"a": 1}')
    assert done.returncode == 0, done
    worked = folder.run("-m", "stem_iso", "worker", "-A", "jobs", "--burst")
    assert worked.returncode == 0, worked
    assert folder.json("result", done.stdout.strip())["result"] == 2


INTERRUPTED = """
import sys

class Interrupted:
    def find_spec(self, name, path, target=None):
        if name == "stem_iso.cli.root":
            raise KeyboardInterrupt  # as typed while the commands are imported

sys.meta_path.insert(0, Interrupted())
from stem_iso.cli import main
main()
"""


def test_ctrl_c_is_silent_from_the_first_moment_on(folder: Folder) -> None:
    done = folder.run("-c", INTERRUPTED)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("json", [[], ["--json"]])
def test_an_answer_that_cannot_be_written_is_said_in_a_line(folder: Folder, json: list[str]) -> None:
    command = ["-m", "stem_iso", "enqueue", "add", "-A", "jobs", "--args", '{"a": 1}', *json]
    with open("/dev/full", "w") as full:
        process = folder.start(*command, stdout=full)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "Error: the answer cannot be written: No space left on device\n")
    closed = folder.start("-c", "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])", *command)
    _, err = closed.communicate(timeout=60)
    assert (closed.returncode, err) == (0, "")
    assert folder.json("queues", "-A", "jobs")[0]["queued"] == 2


def complete(folder: Folder, line: str) -> list[str]:
    """What a shell is offered at the end of this line."""
    words = line.split(" ")
    folder.environ |= {"_STEM_ISO_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    program = "import sys; sys.argv = ['stem-iso']; from stem_iso.cli import main; main()"
    done = folder.run("-c", program)
    assert (done.returncode, done.stderr) == (0, ""), done
    return [offer.partition(",")[2] for offer in done.stdout.splitlines() if offer]


def test_values_are_completed(folder: Folder) -> None:
    folder.write("loud.py", "import os, sys\nfrom jobs import app\nprint('hello')\nos.write(2, b'warning')\n")
    folder.write("broken.py", "1 / 0\n")
    for line, offered in {
        "stem-iso enqueue -A jobs ": ["add", "fail", "hang", "pack"],
        "stem-iso enqueue -A loud:app p": ["pack"],
        "stem-iso enqueue -A jobs add --queue ": ["default", "images"],
        "stem-iso worker -A jobs -Q images,d": ["images,default"],
        "stem-iso worker -l w": ["warning"],
        "stem-iso queues -A jobs purge i": ["images"],
        "stem-iso mi": ["migrate"],
        "stem-iso enqueue ": [],
        "stem-iso enqueue -A broken a": [],
    }.items():
        assert complete(folder, line) == offered, line
    folder.environ["STEM_ISO_APP"] = "jobs"
    assert complete(folder, "stem-iso enqueue f") == ["fail"]

"""A task's life as somebody sees it from a shell."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
from datetime import datetime

import pytest

from tests.cli.conftest import Folder


def test_from_enqueue_to_result(folder: Folder) -> None:
    id = folder.enqueue("add", a=2, b=3)
    [queue] = folder.json("queues")
    assert {name: queue[name] for name in ("name", "queued", "delayed", "running", "dead", "paused", "served_by")} == {
        "name": "default", "queued": 1, "delayed": 0, "running": 0, "dead": 0, "paused": False, "served_by": [],
    }  # fmt: skip
    assert folder.json("status", id)["state"] == "queued"
    row = folder.stem("queues").stdout.splitlines()[1].split()
    assert (row[:5], row[-2:]) == (["default", "1", "0", "0", "0"], ["none", "active"])  # nobody works for it

    worked = folder.worker()
    assert worked.returncode == 0, worked
    first = (worked.stdout + worked.stderr).splitlines()[0]
    assert f"sqlite:///{folder.path}/stem_iso.db" in first
    assert all(word in first for word in ("default", "images", "seats", "spares", "cores"))

    status = folder.json("status", id)
    assert {name: status[name] for name in ("id", "name", "queue", "state", "reason", "run", "attempt", "result", "error", "progress")} == {
        "id": id, "name": "add", "queue": "default", "state": "succeeded", "reason": None, "run": 0, "attempt": 0,
        "result": 5, "error": None, "progress": None,
    }  # fmt: skip
    assert datetime.fromisoformat(status["finished_at"]) >= datetime.fromisoformat(status["started_at"])
    assert folder.json("result", id)["result"] == 5
    plain = folder.stem("result", id)
    assert (plain.returncode, plain.stdout) == (0, "5\n")
    assert "succeeded" in folder.stem("status", id).stdout
    assert folder.stem("queues").stdout.splitlines()[1].split()[:5] == ["default", "0", "0", "0", "0"]


@pytest.mark.slow
def test_bytes_travel_as_base64_and_progress_is_kept(folder: Folder) -> None:
    id = folder.enqueue("pack", path="cat.png")
    assert folder.worker("-Q", "images").returncode == 0
    status = folder.json("status", id)
    assert base64.b64decode(status["result"]) == b"cat.png"
    assert status["progress"] == {"percent": 50, "data": {"path": "cat.png"}}


@pytest.mark.slow
def test_waiting_for_a_task_shows_how_it_ended(folder: Folder) -> None:
    with folder.working():
        well = folder.stem("enqueue", "add", "-A", "jobs:app", "--args", '{"a": 1}', "--wait", "--timeout", "60")
        ill = folder.stem("enqueue", "fail", "-A", "jobs:app", "--args", '{"text": "no luck"}', "--wait", "--timeout", "60")
        stuck = folder.json("enqueue", "hang", "-A", "jobs:app", "--wait", "--timeout", "60", code=1)
    assert (well.returncode, well.stdout) == (0, "2\n")
    assert ill.returncode == 1 and "ValueError: no luck" in ill.stderr and "Traceback" in ill.stderr
    assert stuck["state"] == "failed" and stuck["error"]["type"].endswith("TimeoutException")
    assert "jobs.py" in stuck["error"]["stack"] and "hang" in stuck["error"]["stack"]


@pytest.mark.slow
def test_a_wait_that_runs_out_is_no_failure_of_the_task(folder: Folder) -> None:
    id = folder.enqueue("add", a=1)
    done = folder.stem("result", id, "--timeout", "0.1")
    assert done.returncode == 4 and "has not ended within 0.1 s" in done.stderr
    assert folder.json("result", id, "--timeout", "0", code=4)["error"]["type"] == "TimeoutError"
    assert folder.json("status", id)["state"] == "queued"


def test_revoke(folder: Folder) -> None:
    id = folder.enqueue("add", a=1)
    assert folder.json("revoke", id) == {"id": id, "revoked": True, "state": "cancelled"}
    again = folder.stem("revoke", id)
    assert again.returncode == 1 and "nothing to revoke" in again.stderr
    waited = folder.stem("result", id)
    assert waited.returncode == 1 and "revoked" in waited.stderr


@pytest.mark.slow
def test_purge_a_queue(folder: Folder) -> None:
    ids = [folder.enqueue("add", a=number) for number in range(2)]
    assert folder.json("queues", "purge", "default") == {"name": "default", "purged": 2}
    assert [folder.json("status", id)["reason"] for id in ids] == ["purged", "purged"]


@pytest.mark.slow
def test_options_before_a_command_below_count_as_well(folder: Folder) -> None:
    id = folder.enqueue("add", a=1)
    other = folder.stem("queues", "--broker", "sqlite:///other.db", "--json", "purge", "default")
    assert (other.returncode, other.stdout) == (0, '{"name":"default","purged":0}\n')
    assert folder.json("status", id)["state"] == "queued"


@pytest.mark.slow
def test_dead_letters_from_list_to_replay(folder: Folder) -> None:
    ids = [folder.enqueue("fail", text=str(number)) for number in range(2)]
    assert folder.worker().returncode == 0
    listed = folder.json("dlq", "list")
    assert [letter["id"] for letter in listed] == ids or {letter["id"] for letter in listed} == set(ids)
    assert folder.json("dlq", "list", "--since", "2999-01-01") == folder.json("dlq", "list", "--queue", "images") == []
    shown = folder.json("dlq", "show", ids[0], "-A", "jobs")  # the code says which arguments are no secrets
    assert shown["args"] == {"text": "0"} and shown["error"]["message"] == "0" and shown["run"] == 0
    assert "ValueError: 0" in folder.stem("dlq", "show", ids[0]).stdout

    assert folder.stem("dlq", "replay").returncode == 2
    assert [letter["run"] for letter in folder.json("dlq", "replay", "--all", "--dry-run")] == [1, 1]
    assert folder.json("queues")[0]["dead"] == 2
    assert folder.json("dlq", "replay", ids[0], "--delay", "60") == [{"id": ids[0], "run": 1, "refused": None}]
    [queue] = folder.json("queues")
    assert (queue["name"], queue["queued"], queue["delayed"], queue["running"], queue["dead"]) == ("default", 0, 1, 0, 1)
    assert folder.json("status", ids[0])["run"] == 1
    unknown = folder.stem("dlq", "replay", "nothing")
    assert unknown.returncode == 1 and "nothing" in unknown.stderr
    assert folder.json("dlq", "purge") == {"purged": 1}
    assert folder.stem("dlq", "list").stdout == "no dead letters\n"


@pytest.mark.slow
def test_workers_and_events_as_they_happen(folder: Folder) -> None:
    received = folder.path / "heard"
    with folder.working("-c", "1", "-Q", "default"), received.open("w") as output:
        listening = folder.start("-c", "from stem_iso.cli import main; main()", "events", "--json", stdout=output)
        # A listener needs a moment until it listens, and a worker up to a second until it knows.
        for _ in range(50):
            folder.stem("enqueue", "add", "-A", "jobs", "--args", '{"a": 1}', "--wait")
            if "completed" in received.read_text():
                break
        [worker] = folder.json("workers")
        listening.send_signal(signal.SIGINT)
        _, complaint = listening.communicate(timeout=30)
    assert listening.returncode == 130 and complaint.strip() == ""
    events = [json.loads(line) for line in received.read_text().splitlines()]
    assert all({"type", "at", "worker_id"} <= set(event) for event in events)
    assert "add" in {event.get("name") for event in events}
    assert worker["seats"] == 1 and worker["queues"] == ["default"] and datetime.fromisoformat(worker["seen_at"])
    assert {event["worker_id"] for event in events} == {worker["id"]}
    assert folder.json("workers") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_stopped_exits_with_0(folder: Folder, number: signal.Signals) -> None:
    process = folder.start("-m", "stem_iso.worker", "-A", "jobs", stdout=subprocess.DEVNULL)
    assert process.stderr is not None and "seats" in process.stderr.readline()
    process.send_signal(number)
    process.communicate(timeout=40)
    assert process.returncode == 0


@pytest.mark.slow
def test_a_status_shows_the_attempts_before_and_what_was_printed_last(folder: Folder) -> None:
    folder.write("jobs.py", FLAKY)
    ids = [folder.enqueue(name) for name in ("isolated", "beside")]
    folder.worker()
    for id in ids:
        status = folder.json("status", id)
        assert [(each["attempt"], each["reason"], each["hard_time_limit"]) for each in status["attempts"]] == [(0, "error", 30)]
        assert status["error"]["output"] == "attempt 1 of \x1b[2Jours"
        shown = folder.stem("status", id).stdout
        assert re.search(
            r"tried before: 0  .*  ran \d.*  hard limit 30.0 s  retried \(error\)  ValueError: not yet: \\x1b\[2J\\n1  forged\n", shown
        )
        for known in (shown, folder.stem("dlq", "show", id).stdout):
            assert re.search(r"printed last: attempt 1 of \\x1b\[2Jours\n", known)


FLAKY = """
from stem_iso import Stem, TaskContext

app = Stem()

class AtOnce:
    def next_delay(self, attempt, error):
        return 0.0

def fail(context: TaskContext) -> None:
    print(f"attempt {context.attempt} of \\x1b[2Jours")
    raise ValueError("not yet: \\x1b[2J\\n1  forged")

options = {"max_retries": 1, "retry_strategy": AtOnce(), "hard_time_limit": 30}
app.task(name="isolated", isolate=True, **options)(fail)

@app.task(name="beside", **options)
async def beside(context: TaskContext) -> None:
    fail(context)
"""

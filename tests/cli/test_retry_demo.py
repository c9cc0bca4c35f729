"""The retry demo prints what happened in lines of JSON, proves what is left, and ends by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import pytest

from tests.cli.conftest import ROOT, Folder


def of(lines: list[dict[str, Any]], name: str, task: str = "retry_task.fail") -> list[dict[str, Any]]:
    return [line for line in lines if line.get("signal") == name and line["name"] == task]


@pytest.mark.slow
def test_the_demo_prints_every_signal_and_proves_what_is_left(folder: Folder) -> None:
    done = folder.run("-m", "entrypoints.retry_task", "--broker", "sqlite:///mine.db")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]

    assert [line["attempt"] for line in of(lines, "task_prerun")] == [0, 1, 2, 3]
    assert [line["state"] for line in of(lines, "task_postrun")] == ["retried"] * 3 + ["failed"]
    assert len(of(lines, "before_task_publish")) == len(of(lines, "after_task_publish")) == 1
    (failed,) = of(lines, "task_failed")
    assert (failed["attempt"], failed["reason"], failed["error"]["type"]) == (3, "max-retries-exhausted", "ConnectionError")
    retries = of(lines, "task_retry")
    assert [(line["reason"], line["next_attempt"]) for line in retries] == [("error", 1), ("error", 2), ("error", 3)]
    begins = of(lines, "task_prerun")
    for retry, highest, before, begun in zip(retries, (0.3, 0.6, 1.2), begins[:-1], begins[1:], strict=True):
        # What is left of the delay when the signal is sent: the time that the store took is over by then.
        assert retry["delay"] <= highest and before["at"] + 0.75 * highest <= retry["due"]
        assert begun["due"] == retry["due"] and 0 <= begun["late"] < 2

    assert [line["redeliveries"] for line in of(lines, "task_received", "retry_task.outlive")] == [0, 1]
    assert [line["attempt"] for line in of(lines, "task_prerun", "retry_task.outlive")] == [0, 0]
    (redelivered,) = (line for line in lines if line.get("demo") == "redelivered")
    assert redelivered["as_promised"] is True and 0 <= redelivered["after"] <= redelivered["at_most"] < 5, "long before its lease ran out"

    proof = lines[-1]
    assert proof["holds"] is True
    assert (proof["queued"], proof["delayed"], proof["running"], [one["id"] for one in proof["dead_letters"]]) == (
        0,
        0,
        0,
        [failed["task_id"]],
    )
    # As somebody else sees it, in the broker that was given, relative to this folder.
    assert [one["id"] for one in folder.json("dlq", "list", "--broker", "sqlite:///mine.db")] == [failed["task_id"]]


@pytest.mark.slow
def test_ctrl_c_ends_the_demo_and_its_workers(folder: Folder) -> None:
    folder.environ["TMPDIR"] = str(folder.path)
    process = folder.start("-m", "entrypoints.retry_task")
    assert process.stdout is not None
    worker = 0
    for line in process.stdout:
        value = json.loads(line)
        worker = value.get("pid", worker) if value.get("signal") == "worker_ready" else worker
        if value.get("signal") == "task_retry":
            break
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=30)  # to the end of its output, which its workers hold open too
    assert (process.returncode, complaint) == (130, "stopped\n")
    assert list(folder.path.glob("stem_iso-retry-*")) == []
    assert worker and subprocess.run(["kill", "-0", str(worker)], capture_output=True).returncode != 0


def test_a_broker_of_one_process_is_refused(folder: Folder) -> None:
    done = folder.run("-m", "entrypoints.retry_task", "--broker", "memory://")
    assert done.returncode == 2 and "memory:// lives in one process" in done.stderr


def test_make_hands_the_broker_over() -> None:
    def command(*given: str) -> str:
        apart = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}  # the tests may be a target
        making = subprocess.run(["make", "-n", "retry-demo", *given], cwd=ROOT, capture_output=True, text=True, check=True, env=apart)
        output = making.stdout
        return output.splitlines()[-1].rstrip()

    assert command().endswith("-m entrypoints.retry_task")
    assert command("BROKER=redis://localhost/0").endswith("-m entrypoints.retry_task --broker 'redis://localhost/0'")

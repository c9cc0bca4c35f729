"""Logs of real workers whose applications configure logging as guides show it: each record once in each log, whole, in both formats."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.command.conftest import ROOT, Command
from tests.command.test_stopping import started

Start = Callable[..., Command]

WAYS = {
    "nothing": "",
    "dictConfig": """
        dictConfig({
            "version": 1,
            "formatters": {"own": {"format": "%(levelname)s|%(name)s|%(message)s"}},
            "handlers": {
                "own": {"class": "logging.FileHandler", "filename": "own.log", "formatter": "own"},
                "console": {"class": "logging.StreamHandler"},
                "out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"},
            },
            "loggers": {"apart": {"handlers": ["own", "console"], "propagate": False, "level": "INFO"}},
            "root": {"level": "INFO", "handlers": ["own", "console", "out"]},
        })
    """,
    "structlog": """
        import structlog
        structlog.configure(
            processors=[structlog.stdlib.add_log_level, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            logger_factory=structlog.stdlib.LoggerFactory(),
        )
        formatter = structlog.stdlib.ProcessorFormatter(processor=structlog.processors.KeyValueRenderer())
        own, console = logging.FileHandler("own.log"), logging.StreamHandler()
        for handler in (own, console):
            handler.setFormatter(formatter)
        logging.basicConfig(level="INFO", handlers=[own, console], force=True)
        log = structlog.get_logger("shop.early")
    """,
}
APPLICATION = """
import logging
from logging.config import dictConfig
from stem_iso import Stem, TaskContext

log = logging.getLogger("shop.early")  # made before dictConfig, which disables it
{way}
app = Stem("sqlite:///jobs.db")

class Opaque:
    def __repr__(self):
        return "<opaque>"

def work(context, form):
    if hasattr(log, "bind"):
        log.info("charged " + form, order=7, who=Opaque())
    else:
        log.info("charged %s", form, extra={"order": 7, "who": Opaque()})
    logging.getLogger("apart").warning("apart %s", form)
    log.debug("too quiet %s", form)
    print("printed " + form)
    try:
        {}["missing"]
    except KeyError:
        log.exception("broke " + form)

@app.task(name="isolated", isolate=True, queue="images")
def isolated(context: TaskContext) -> None:
    work(context, "isolated")

@app.task(name="sync", queue="images")
def sync(context: TaskContext) -> None:
    work(context, "sync")

@app.task(name="coroutine", queue="images")
async def coroutine(context: TaskContext) -> None:
    work(context, "coroutine")

@app.task(name="fails", isolate=True, queue="images", max_retries=0)
def fails() -> None:
    raise ValueError("the reason")

def enqueue():
    for task in (isolated, sync, coroutine, fails):
        task.enqueue()
"""
FORMS = ("isolated", "sync", "coroutine")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("STEM_ISO_")} | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def work(folder: Path, way: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "shop.py").write_text(APPLICATION.replace("{way}", dedent(WAYS[way])))
    enqueued = run(folder, "-c", "import shop; shop.enqueue()")
    assert enqueued.returncode == 0, enqueued.stderr
    (folder / "own.log").unlink(missing_ok=True)
    done = run(folder, "-m", "stem_iso.worker", "-A", "shop:app", "--burst", "-c", "2", "--spares", "0", *options)
    assert done.returncode == 0, done.stderr
    return done


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("way", ["dictConfig", pytest.param("nothing", marks=pytest.mark.slow), "structlog"])
def test_each_record_is_once_in_the_worker_s_log_as_json_and_once_in_the_application_s(tmp_path: Path, way: str) -> None:
    done = work(tmp_path, way, "--log-format", "json")
    assert done.stdout == ""
    found = records(done.stderr)
    for form in FORMS:
        [charged] = [record for record in found if record["message"] == f"charged {form}"]
        assert (charged["logger"], charged["level"], charged["order"], charged["who"]) == ("shop.early", "info", 7, "<opaque>")
        assert (charged["task_name"], charged["queue"], charged["attempt"]) == (form, "images", 0)
        assert charged["task_id"] and charged["worker"]
        [broke] = [record for record in found if record["message"] == f"broke {form}"]
        assert broke["error_type"] == "KeyError" and broke["traceback"].endswith("KeyError: 'missing'")
        [apart] = [record for record in found if record["message"] == f"apart {form}"]
        assert (apart["logger"], apart["level"]) == ("apart", "warning")
        [printed] = [record for record in found if record["message"] == f"printed {form}"]
        assert printed["source"] == "stdout" and printed["task_name"] == form
        own = [record for record in found if record.get("task_name") == form and "event" in record]
        assert [record["event"] for record in own] == ["started", "completed"]
        assert own[-1]["duration_ms"] > 0
        assert own[0]["time"] <= charged["time"] <= own[-1]["time"] and own[0]["time"] <= printed["time"]
    [failed] = [record for record in found if record.get("event") == "failed"]
    assert (failed["task_name"], failed["error_type"], failed["level"]) == ("fails", "ValueError", "error")
    assert failed["traceback"].endswith("ValueError: the reason") and failed["duration_ms"] > 0
    assert not any("too quiet" in record["message"] for record in found)
    if way != "nothing":
        written = (tmp_path / "own.log").read_text()
        for text in (f"{what} {form}" for what in ("charged", "broke", "apart") for form in FORMS):
            assert written.count(text) == 1, text
        assert written.count("the reason") >= 1 and written.count(" completed in ") == 3


def test_as_text_a_record_bears_its_logger_its_extras_and_its_traceback(tmp_path: Path) -> None:
    lines = work(tmp_path, "dictConfig").stderr.splitlines()
    for form in FORMS:
        [charged] = [line for line in lines if f"charged {form}" in line]
        assert " INFO    shop.early: [" in charged and charged.endswith(f"charged {form} order=7 who=<opaque>")
        [at] = [number for number, line in enumerate(lines) if f"broke {form}" in line]
        assert lines[at + 1] == "    Traceback (most recent call last):"
        [started] = [line for line in lines if f" INFO    {form} " in line and " started (" in line]
        [ended] = [line for line in lines if f" INFO    {form} " in line and " completed in " in line]
        assert lines.index(started) < lines.index(ended)
    assert not any(" isolate " in line for line in lines)


@pytest.mark.slow
def test_a_level_of_the_worker_holds_whatever_the_application_configures(tmp_path: Path) -> None:
    done = work(tmp_path, "dictConfig", "-l", "error")
    assert "charged" not in done.stderr and "started" not in done.stderr and "apart" not in done.stderr
    assert all(done.stderr.count(f"broke {form}") == 1 for form in FORMS)
    written = (tmp_path / "own.log").read_text()
    assert all(written.count(text) == 1 for text in (f"INFO|shop.early|charged {form}\n" for form in FORMS))


@pytest.mark.slow
def test_the_log_file_has_it_all_and_a_console_handler_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    path.write_text("before\n")
    done = work(tmp_path, "dictConfig", "--log-file", "worker.log")
    first, *lines = path.read_text().splitlines()
    assert first == "before"
    for text in (f"{what} {form}" for what in ("charged", "apart", "broke", "printed") for form in FORMS):
        assert len([line for line in lines if text in line]) == 1, text
    assert all(done.stderr.count(f"{what} {form}") == 1 for what in ("charged", "apart", "broke") for form in FORMS)
    assert done.stderr.count("worker stopped") == 1


@pytest.mark.parametrize("form", ["option", "environment"])
def test_a_log_file_that_cannot_be_written_is_a_usage_error_that_says_so(tmp_path: Path, form: str) -> None:
    (tmp_path / "shop.py").write_text("from stem_iso import Stem\napp = Stem('memory://')\n")
    command = ["-m", "stem_iso.worker", "-A", "shop:app", "--burst"]
    path = str(tmp_path / "nowhere" / "worker.log")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    if form == "option":
        command += ["--log-file", path]
    else:
        env["STEM_ISO_LOG_FILE"] = path
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if "log_file" in line]
    assert path in line and "No such file or directory" in line and "leave it out" in line
    assert "Traceback" not in done.stderr


def test_a_log_file_that_is_renamed_is_made_again(tmp_path: Path) -> None:
    from stem_iso.worker.reporting.log_output import LogFile

    path = tmp_path / "worker.log"
    file, other = LogFile(str(path)), LogFile(str(path))
    file.write("one\n")
    path.rename(tmp_path / "worker.log.1")
    file.write("two\n")
    other.write("three\n")
    assert (tmp_path / "worker.log.1").read_text() == "one\n"
    assert path.read_text() == "two\nthree\n"


def test_why_a_worker_ends_is_on_stderr_whatever_the_log_is(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import nowhere_to_be_found\n")
    done = run(tmp_path, "-m", "stem_iso.worker", "-A", "shop:app", "--burst", "--log-file", "worker.log")
    assert done.returncode == 2
    assert "nowhere_to_be_found" in done.stderr and "nowhere_to_be_found" in (tmp_path / "worker.log").read_text()


def test_why_a_worker_ends_is_a_record_in_a_log_of_json(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "stem_iso.worker", "-A", "shop:app", "--log-file", "worker.log", "--log-format", "json")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    [record] = map(json.loads, (tmp_path / "worker.log").read_text().splitlines())
    assert record["level"] == "error"
    assert done.stderr == f"Error: {record['message']}\n"


EMBEDDED = """
import logging, sys
from stem_iso import Worker
import shop

if __name__ == "__main__":
    with Worker(shop.app, concurrency=2, spares=0):
        handles = [task.enqueue() for task in (shop.isolated, shop.sync, shop.coroutine)]
        for handle in handles:
            handle.result(timeout=60)
"""


def test_an_embedded_worker_logs_each_record_once_in_every_handler_of_the_program(tmp_path: Path) -> None:
    way = dedent(WAYS["dictConfig"]).replace('"root"', '"disable_existing_loggers": False, "root"')
    (tmp_path / "shop.py").write_text(APPLICATION.replace("{way}", way))
    (tmp_path / "program.py").write_text(EMBEDDED)
    done = run(tmp_path, "program.py")
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "own.log").read_text()
    for text in (f"{what} {form}" for what in ("charged", "broke") for form in FORMS):
        assert [place.count(text) for place in (written, done.stderr, done.stdout)] == [1, 1, 1], text


def test_a_stop_says_what_was_killed_and_given_back(command: Start, tmp_path: Path) -> None:
    worker = command("--shutdown-timeout", "0.2", "--log-format", "json").ready()
    ledger = tmp_path / "ledger"
    handle = worker.enqueue("nap", args={"ledger": str(ledger), "seconds": 1000})
    started(ledger)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    found = records(worker.log.read_text())
    [killed] = [record for record in found if "killed by the stop, and given back" in record["message"]]
    assert (killed["task_id"], killed["task_name"], killed["level"]) == (handle.id, "nap", "info")
    assert [record["message"] for record in found[-2:]] == [
        "stopped: 1 killed and given back, 0 given back that had not begun",
        "worker stopped",
    ]

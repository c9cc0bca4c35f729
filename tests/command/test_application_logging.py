"""Applications that configure logging while they are imported, as the guides of frameworks show it: nothing of a worker's log vanishes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent

import pytest

from tests.command.conftest import ROOT

OWN = '"handlers": {"own": {"class": "logging.FileHandler", "filename": "own.log"}}'
WAYS = {  # how logging is configured, and whether the records are then in the application's log as well as on stderr
    "root": (f'dictConfig({{"version": 1, {OWN}, "root": {{"level": "WARNING", "handlers": ["own"]}}}})', "own.log"),
    "kept": (f'dictConfig({{"version": 1, {OWN}, "root": {{"handlers": ["own"]}}, "disable_existing_loggers": False}})', "own.log"),
    "ours": (f'dictConfig({{"version": 1, {OWN}, "loggers": {{"stem_iso": {{"handlers": ["own"], "propagate": False}}}}}})', "own.log"),
    "bare root": ('dictConfig({"version": 1, "root": {"level": "WARNING"}})', "stderr"),
    "another": (f'dictConfig({{"version": 1, {OWN}, "loggers": {{"other": {{"handlers": ["own"]}}}}}})', "stderr"),
    "basicConfig": ('logging.basicConfig(filename="own.log", level="ERROR", force=True)', "own.log"),
    "a handler that leaves": ("logging.basicConfig(handlers=[Leaving()], force=True)", "stderr"),
}
APPLICATION = dedent("""
    import logging
    import sys
    from logging.config import dictConfig
    from stem_iso import Stem

    class Leaving(logging.Handler):
        def emit(self, record):
            if record.name.startswith("stem_iso"):
                sys.exit("no log")

    def configure():
    {way}

    app = Stem("sqlite:///jobs.db")
    configure()

    @app.task(name="fails", isolate=True)
    def fails():
        raise ValueError("the reason\\n2026-11-24 15:04:05.678 INFO    forged")

    @app.task(name="prints", isolate=True)
    def prints():
        print("printed by a task \\x1b[2J\\a")

    @app.task(name="inline")
    def inline():
        print("printed inline")

    if __name__ == "__main__":
        for task in (fails, prints, inline):
            task.enqueue()
""")
LOGGED = ("seats", "fails", "ValueError: the reason", "printed by a task", "printed inline", "completed in", "worker stopped")


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_records_go_to_the_handlers_of_the_application_and_to_stderr(tmp_path: Path, way: str) -> None:
    statement, place = WAYS[way]
    (tmp_path / "shop.py").write_text(APPLICATION.replace("{way}", indent(statement, "    ")))
    for command in ((str(tmp_path / "shop.py"),), ("-m", "stem_iso.worker", "-A", "shop:app", "--burst", "-c", "2", "--spares", "0")):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
    own = tmp_path / "own.log"
    assert [text for text in LOGGED if text not in done.stderr] == []
    written = own.read_text() if own.exists() else ""
    assert [text for text in LOGGED if text in written] == ([*LOGGED] if place == "own.log" else [])
    assert not {"\x1b", "\a", "\r"} & set(done.stderr)
    assert "printed by a task \\x1b[2J\\x07" in done.stderr
    assert "\n2026-11-24" not in done.stderr and "\n    2026-11-24" in done.stderr


WITHIN = {  # how a handler configures logging while it runs
    "root": 'dictConfig({"version": 1, "handlers": {"own": OWN}, "root": {"level": "INFO", "handlers": ["own"]}})',
    "of its own": """dictConfig({"version": 1, "handlers": {"own": OWN}, "disable_existing_loggers": False,
                    "loggers": {"shop": {"handlers": ["own"], "propagate": False}}})""",
    "disabled": 'dictConfig({"version": 1})',
    "fileConfig": "fileConfig(io.StringIO(INI))",
    "basicConfig": "logging.basicConfig(force=True)",
}
SHOP = '''
import io, logging, sys
from logging.config import dictConfig, fileConfig
from stem_iso import Stem

OWN = {"class": "logging.StreamHandler"}
INI = """
[loggers]
keys=root
[handlers]
keys=own
[formatters]
keys=
[logger_root]
handlers=own
[handler_own]
class=StreamHandler
args=(sys.stderr,)
"""
log = logging.getLogger("shop")
app = Stem("sqlite:///jobs.db")

def configure():
    WAY

@app.task(name="isolated", isolate=True)
def isolated(number):
    log.error("isolated %d", number, extra={"number": number})

@app.task(name="inline")
def inline(number):
    log.error("inline %d", number, extra={"number": number})

@app.task(name="coroutine")
async def coroutine(number):
    log.error("coroutine %d", number, extra={"number": number})

@app.task(name="configures.isolated", isolate=True)
def configures_isolated():
    configure()

@app.task(name="configures.inline")
def configures_inline():
    configure()

@app.task(name="configures.coroutine")
async def configures_coroutine():
    configure()

if __name__ == "__main__":
    for work, configures in ((isolated, configures_isolated), (inline, configures_inline), (coroutine, configures_coroutine)):
        for number in (1, 2):
            work.enqueue(number)
            configures.enqueue()
        work.enqueue(3)
'''


@pytest.mark.slow
@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("way", WITHIN)
def test_a_handler_that_configures_logging_takes_no_later_record_from_the_log(tmp_path: Path, way: str, form: str) -> None:
    (tmp_path / "shop.py").write_text(SHOP.replace("WAY", WITHIN[way]))
    worker = ("-m", "stem_iso.worker", "-A", "shop", "--burst", "-c", "1", "--spares", "0", "--log-format", form, "--log-file", "log")
    for command in (("shop.py",), worker):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
    lines = (tmp_path / "log").read_text().splitlines()
    expected = [f"{kind} {number}" for kind in ("isolated", "inline", "coroutine") for number in (1, 2, 3)]
    if form == "text":
        assert [line.partition("] ")[2] for line in lines if " shop: " in line] == [f"{each} number={each[-1]}" for each in expected]
        return
    records = [record for record in map(json.loads, lines) if record["logger"] == "shop"]
    assert [record["message"] for record in records] == expected
    assert [(record["level"], record["task_name"], record["number"]) for record in records] == [
        ("error", name, int(number)) for name, number in map(str.split, expected)
    ]

"""What isolates of a worker know of it: the argv that its user typed, and no password that `--secret-env` keeps from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from stem_iso.worker import __main__ as command_line
from tests.command.conftest import ROOT, Command

Start = Callable[..., Command]
PASSWORD = "hunter2-is-long"
APPLICATION = """
import os
import sys
from stem_iso import Stem, TaskContext

app = Stem(os.environ.get("SHOP_BROKER") or None, max_redeliveries=7)
SHIFTED = bytes((byte + 1) % 256 for byte in range(256))  # what is looked for must not be found because it is looked for

def in_memory(shifted):
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            place, rights = line.split()[:2]
            if not rights.startswith("rw"):
                continue
            begin, end = (int(part, 16) for part in place.split("-"))
            try:
                memory.seek(begin)
                if shifted in memory.read(end - begin).translate(SHIFTED):
                    return True
            except OSError:
                continue
    return False

def look(context: TaskContext, shifted: str) -> dict:
    try:
        status = app.handle(context.id).status().state.value
    except Exception as error:
        status = f"{type(error).__name__}: {error}"
    child = app.tasks["echo"].enqueue()
    report = {"argv": sys.argv, "broker": app.broker, "shown": repr(app), "status": status, "often": app.broker_options.max_redeliveries}
    return report | {"environ": dict(os.environ), "child": child.id, "found": in_memory(shifted.encode("latin-1"))}

app.task(name="look", isolate=True)(look)
app.task(name="inline.look")(look)

@app.task(name="echo", isolate=True)
def echo() -> str:
    return "here"

@app.signals.worker_ready.connect
def ready(signal):
    os.write(2, f"core's argv: {sys.argv}\\n".encode())  # in one piece: the log is written there, too
"""


@pytest.fixture
def secret_url(redis_url: str) -> Iterator[str]:
    """Of a user with a password."""
    with redis.Redis.from_url(redis_url) as plain:
        plain.acl_setuser("ann", enabled=True, passwords=[f"+{PASSWORD}"], categories=["+@all"], keys=["*"], channels=["*"])
        yield f"redis://ann:{PASSWORD}@{urlsplit(redis_url).netloc}/0?claim_interval=0.5"
        plain.acl_deluser("ann")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["variable", "password", "option"])
def test_isolates_have_the_argv_and_no_password(command: Start, tmp_path: Path, secret_url: str, redis_url: str, way: str) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION)
    env = {"PYTHONPATH": str(ROOT), "STEM_ISO_TEST_BROKER": "", "SHOP_BROKER": secret_url}
    options = ["--secret-env", "SHOP_BROKER"]
    if way == "password":
        options, env["SHOP_PASSWORD"] = ["--secret-env", "SHOP_BROKER,SHOP_PASSWORD"], PASSWORD
    elif way == "option":
        options, env["SHOP_BROKER"] = ["--secret-env", "STEM_ISO_BROKER", "--broker", secret_url], ""
    worker = command(*options, application="shop:app", broker=secret_url, env=env, cwd=tmp_path)
    public = secret_url.replace(f"ann:{PASSWORD}@", "")
    argv = [command_line.__file__, "-A", "shop:app", "-c", "4", *(option.replace(secret_url, public) for option in options)]
    for name in ("look", "inline.look"):
        shifted = "".join(chr(ord(letter) + 1) for letter in PASSWORD)
        found: dict[str, Any] = worker.enqueue(name, args={"shifted": shifted}).result(timeout=60)
        assert found["argv"] == argv
        assert (found["broker"], found["often"]) == (public, 7)
        assert "secret of the worker's" in found["status"]
        assert PASSWORD not in str(found)
        assert worker.app.handle(found["child"]).result(timeout=30) == "here"
        assert not found["found"]
    worker.says(f"core's argv: {argv}")


@pytest.mark.slow
def test_a_secret_that_is_not_the_brokers_leaves_isolates_their_broker(command: Start, tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "shop.py").write_text(APPLICATION)
    env = {"PYTHONPATH": str(ROOT), "SHOP_BROKER": redis_url, "TOKEN": "zq7-token-88"}
    worker = command("--secret-env", "TOKEN", application="shop:app", broker=redis_url, env=env, cwd=tmp_path)
    found = worker.enqueue("look", args={"shifted": "{r8.uplfo.99"}).result(timeout=60)
    assert (found["broker"], found["status"], "TOKEN" in found["environ"], found["found"]) == (redis_url, "running", False, False)

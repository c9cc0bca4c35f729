"""`stem-iso dashboard` as a process: its start, what it refuses, and how it stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stem_iso import Stem
from tests.command.conftest import ROOT
from tests.dashboard.conftest import visitor
from tests.dashboard.test_events import messages
from tests.isolate.calling import eventually

pytestmark = pytest.mark.integrations

TOKEN = "a token that nobody guesses"


def command(folder: Path, *options: str, env: dict[str, str] | None = None, **given: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "STEM_ISO_BROKER": f"sqlite:///{folder}/jobs.db", "PYTHONPATH": os.fspath(ROOT), **(env or {})}
    return subprocess.Popen(
        [sys.executable, "-m", "stem_iso", "dashboard", *options],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **given,
    )


@contextmanager
def running(folder: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and the address that it says."""
    process = command(folder, "--port", "0", "--json", *options, env=env)
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, json.loads(line)["url"]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def refusal(folder: Path, *options: str) -> tuple[int, str]:
    process = command(folder, *options)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_it_starts_answers_and_stops_at_once_with_a_stream_open(tmp_path: Path, number: signal.Signals, code: int) -> None:
    app = Stem(f"sqlite:///{tmp_path}/jobs.db")
    id = app.enqueue("thumbs.make", {"path": "cat.png"}).id
    with running(tmp_path) as (process, url), visitor(url) as site:
        assert site.get("/api/tasks").json()["tasks"][0]["id"] == id
        with site.stream("GET", "/api/events") as answer:
            tab = messages(answer)
            assert next(tab)[0] == "hello"
            process.send_signal(number)
            assert list(tab) == []  # it ends; it is not cut off
        assert process.wait(60) == code
        assert process.stderr is not None and "Traceback" not in process.stderr.read()
    app.close()


def test_a_port_that_is_taken_is_said_so(tmp_path: Path) -> None:
    with running(tmp_path) as (_, url):
        port = url.rpartition(":")[2].strip("/")
        code, said = refusal(tmp_path, "--port", port)
        assert code == 2 and "cannot listen" in said and "give another" in said


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_an_address_that_others_reach_needs_a_token(tmp_path: Path, host: str) -> None:
    code, said = refusal(tmp_path, "--host", host)
    assert code == 2 and "--token" in said and "--auth" in said


def test_an_empty_token_is_refused(tmp_path: Path) -> None:
    code, said = refusal(tmp_path, "--host", "0.0.0.0", "--token", "")
    assert code == 2 and "--token" in said


def test_the_token_comes_from_the_environment_and_opens_any_address(tmp_path: Path) -> None:
    with running(tmp_path, "--host", "0.0.0.0", env={"STEM_ISO_DASHBOARD_TOKEN": TOKEN}) as (_, url), visitor(url) as site:
        assert site.get("/api/tasks").status_code == 401
        assert site.get("/api/tasks", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_callable_of_the_application_opens_any_address(tmp_path: Path) -> None:
    (tmp_path / "gate.py").write_text("def ann(request):\n    return request.headers.get('x-user') == 'ann'\nnobody = 7\n")
    with running(tmp_path, "--host", "0.0.0.0", "--auth", "gate:ann") as (_, url), visitor(url) as site:
        assert site.get("/api/tasks").status_code == 403
        assert site.get("/api/tasks", headers={"x-user": "ann"}).status_code == 200
    for target in ("gate:nobody", "gate:missing", "gate", "nowhere:ann"):
        code, said = refusal(tmp_path, "--auth", target)
        assert code == 2 and "--auth" in said, target


def test_at_loopback_it_answers_under_names_of_loopback_alone(tmp_path: Path) -> None:
    with running(tmp_path, "--allowed-host", "ops.internal", "--read-only") as (_, url), visitor(url) as site:
        assert site.get("/api/tasks", headers={"Host": "evil.example"}).status_code == 421
        assert site.get("/api/tasks", headers={"Host": "ops.internal"}).status_code == 200
        assert site.post("/api/bulk", json={}, headers={"X-Stem-Iso": "1"}).json()["error"]["type"] == "ReadOnly"


def test_nothing_of_it_is_on_the_way_of_a_producer(tmp_path: Path) -> None:
    """Nor of any other command: the extra need not be there."""
    heavy = "{'starlette', 'uvicorn', 'jinja2'}"
    program = f"import sys, stem_iso.cli, stem_iso.app, stem_iso.dashboard; sys.exit(len({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_a_port_is_free_again_at_once(tmp_path: Path) -> None:
    with running(tmp_path) as (process, url):
        port = int(url.rpartition(":")[2].strip("/"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        with socket.create_server(("127.0.0.1", port)):
            pass
    eventually(lambda: process.poll() is not None, "it runs on")

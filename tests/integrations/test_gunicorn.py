"""Producers under gunicorn: workers that a master forked which had imported, and used, the application; and workers of greenlets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stem_iso.isolate.keeper import process_tree
from tests.command.conftest import Command
from tests.integrations.producers import TOGETHER
from tests.integrations.web import WebServer, sockets, threads
from tests.isolate.calling import eventually
from tests.servers.fixtures import broker_of

httpx = pytest.importorskip("httpx")
pytest.importorskip("gunicorn")

pytestmark = pytest.mark.integrations

Serve = Callable[..., WebServer]


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def worker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    folder = tmp_path_factory.mktemp("gunicorn")
    with broker_of(request.param, folder) as broker:
        worker = Command(folder, "-c", "40", application="tests.integrations.producers", broker=broker, env={"STEM_ISO_BROKER": broker})
        yield worker
        worker.close()


@pytest.fixture
def serve(worker: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    made: list[WebServer] = []

    def start(application: str, *options: str, used_before_fork: bool = False) -> WebServer:
        if used_before_fork:
            monkeypatch.setenv("STEM_ISO_TEST_USED_BEFORE_FORK", "1")
        arguments = ("-m", "gunicorn", "--bind", "127.0.0.1:0", *options, f"tests.integrations.producers:{application}")
        made.append(WebServer(tmp_path, *arguments, broker=worker.broker, ready=lambda log: "Booting worker" in log))
        return made[-1]

    yield start
    for each in made:
        each.close()


def ask(web: WebServer, path: str) -> dict[str, Any]:
    with httpx.Client(base_url=web.url, timeout=90, trust_env=False) as client:
        answer = client.get(path)
        assert answer.status_code == 200, web.log
        return dict(answer.json())


CLASSES = [
    ("wsgi", "sync", None),
    ("wsgi", "gthread", None),
    ("wsgi", "gevent", "gevent"),
    ("asgi", "uvicorn_worker.UvicornWorker", "uvicorn_worker"),
]


@pytest.mark.parametrize(("application", "kind", "needs"), CLASSES, ids=["sync", "gthread", "gevent", "uvicorn"])
@pytest.mark.parametrize("used", [False, True], ids=["imported", "used"])
def test_each_worker_of_a_master_that_had_the_application_enqueues_and_waits(
    serve: Serve, application: str, kind: str, needs: str | None, used: bool
) -> None:
    if needs:
        pytest.importorskip(needs)
    web = serve(application, "--preload", "--workers", "2", "--worker-class", kind, used_before_fork=used)
    master = web.process.pid
    answers: dict[int, list[int]] = {}

    def both_have_answered() -> bool:
        answer = ask(web, f"/?{len(answers) + 20}")
        assert answer["master"] == master, "it was not preloaded"
        answers.setdefault(answer["pid"], []).append(answer["result"])
        return len(answers) == 2 and all(len(results) > 1 for results in answers.values())

    eventually(both_have_answered, f"two workers should answer, not {answers}: {web.log}", 60)
    assert set(answers) == set(process_tree.children(master))
    assert all(result in (40, 42, 44) for results in answers.values() for result in results), answers
    first, second = map(sockets, answers)
    of_master = sockets(master)
    listening = first & second & of_master
    assert len(listening) == 1
    assert (first & second) | (first & of_master) | (second & of_master) == listening, "a connection is shared"
    assert "Traceback" not in web.log


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["plain", "preload"])
def test_greenlets_wait_side_by_side(serve: Serve, worker: Command, preload: tuple[str, ...]) -> None:
    pytest.importorskip("gevent")
    web = serve("wsgi", "--workers", "1", "--worker-class", "gevent", *preload)
    assert ask(web, "/?1")["patched"]
    with ThreadPoolExecutor(TOGETHER) as clients:
        answers = list(clients.map(lambda n: ask(web, f"/meet?{n}"), range(TOGETHER)))
    assert [answer["result"] for answer in answers] == list(range(TOGETHER))
    assert threads(answers[0]["pid"]) <= 4

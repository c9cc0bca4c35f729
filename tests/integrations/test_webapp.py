"""The example of a web service under uvicorn, as a browser and curl meet it, with a worker by command: over SQLite and over Redis."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from stem_iso import TaskHandle
from tests.command.conftest import Command
from tests.integrations.web import WebServer, descriptors, sockets, threads, web_server
from tests.isolate.calling import eventually
from tests.servers.fixtures import broker_of
from tests.servers.server import Server

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

pytestmark = pytest.mark.integrations

LONG = {"title": "long", "pages": 1000, "seconds_per_page": 0.05}  # most of a minute, unless it is cancelled
SHORT = {"title": "May", "pages": 3, "seconds_per_page": 0}


@dataclass
class Site:
    web: WebServer
    worker: Command
    client: Any

    def start(self, report: dict[str, Any], path: str = "/reports") -> str:
        answer = self.client.post(path, json=report)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def status(self, id: str) -> dict[str, Any]:
        answer = self.client.get(f"/tasks/{id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def events(self, id: str) -> Any:
        return self.client.stream("GET", f"/tasks/{id}/events")


def site_at(folder: Path, broker: str) -> Iterator[Site]:
    worker = Command(folder, application="entrypoints.webapp.tasks", broker=broker, env={"STEM_ISO_BROKER": broker})
    try:
        with (
            web_server(folder, "-m", "entrypoints.webapp", "--port", "0", broker=broker) as web,
            httpx.Client(base_url=web.url, timeout=60, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)) as client,
        ):
            yield Site(web, worker, client)
    finally:
        worker.close()


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("webapp")
    with broker_of(request.param, folder) as broker:
        yield from site_at(folder, broker)


def messages(response: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kind and data of each server-sent event; of a comment ("", {})."""
    assert response.headers["content-type"].startswith("text/event-stream"), response.read()
    kind = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))
        elif line.startswith(":"):
            yield "", {}


def until(kind: str, stream: Iterator[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    return next(data for found, data in stream if found == kind)


@pytest.mark.parametrize("path", ["/reports", "/reports/sync"])
def test_a_task_is_started_and_its_result_waited_for(site: Site, path: str) -> None:
    id = site.start(SHORT, path)
    answer = site.client.get(f"/tasks/{id}/result", params={"timeout": 50})
    assert (answer.status_code, answer.json()) == (200, {"title": "May", "pages": 3})
    status = site.status(id)
    assert status["state"] == "succeeded"
    assert status["args"] == SHORT
    assert status["progress"] == {"percent": 100, "data": {"page": 3}}


def test_progress_arrives_while_the_task_runs_and_the_stream_ends_when_it_is_cancelled(site: Site) -> None:
    id = site.start(LONG)
    with site.events(id) as response:
        stream = messages(response)
        assert next(stream)[0] == "status"
        first, second = until("progress", stream), until("progress", stream)
        assert first["task_id"] == id
        assert first["percent"] < second["percent"] < 50
        assert site.status(id)["state"] == "running"
        assert site.client.delete(f"/tasks/{id}").status_code == 202
        rest = list(stream)
        assert [kind for kind, _ in rest if kind not in ("progress", "status")] == ["revoked", "end"]
        assert (rest[-1][1]["state"], rest[-1][1]["reason"]) == ("cancelled", "revoked")
    answer = site.client.get(f"/tasks/{id}/result")
    assert (answer.status_code, answer.json()["status"]["state"]) == (409, "cancelled")


def test_the_stream_of_a_task_that_had_ended_is_its_end(site: Site) -> None:
    id = site.start(SHORT)
    site.client.get(f"/tasks/{id}/result", params={"timeout": 50})
    with site.events(id) as response:
        ((kind, data),) = messages(response)
    assert (kind, data["result"]) == ("end", {"title": "May", "pages": 3})


STREAMS = 20
FEW = 12  # threads of a service: those of the loop's executor are six on two cores


def test_clients_that_go_away_in_the_middle_leave_nothing_behind(site: Site) -> None:
    id, pid = site.start(LONG), site.web.process.pid
    with ExitStack() as clients:
        streams = [messages(clients.enter_context(site.events(id))) for _ in range(STREAMS)]
        for stream in streams:
            until("progress", stream)
        open_ones = descriptors(pid)
        assert threads(pid) <= FEW
    eventually(lambda: threads(pid) <= FEW and descriptors(pid) <= open_ones - STREAMS, "what served the streams is still there", 30)
    assert site.status(id)["state"] == "running"
    site.client.delete(f"/tasks/{id}")
    assert "Traceback" not in site.web.log and "ERROR" not in site.web.log, site.web.log


def held(pid: int) -> tuple[int, int]:
    return threads(pid), descriptors(pid)


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "says"),
    [
        ("GET", "/tasks/nobody", None, 404, "never enqueued"),
        ("GET", "/tasks/nobody/result", None, 404, "no task nobody"),
        ("GET", "/tasks/nobody/events", None, 404, "never enqueued"),
        ("DELETE", "/tasks/%00", None, 404, "never enqueued"),
        ("GET", "/tasks/nobody/result?timeout=soon", None, 422, "valid number"),
        ("POST", "/reports", {"title": ""}, 422, "at least 1 character"),
        ("POST", "/reports", {"title": "x", "pages": "many"}, 422, "valid integer"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(site: Site, method: str, path: str, body: Any, code: int, says: str) -> None:
    answer = site.client.request(method, path, json=body)
    assert answer.status_code == code
    assert says in answer.text


def test_without_a_worker_a_task_waits_and_says_so(tmp_path: Path) -> None:
    for site in site_at(tmp_path, f"sqlite:///{tmp_path}/jobs.db"):
        site.worker.send(signal.SIGTERM)
        assert site.worker.wait() == 0
        id = site.start(SHORT)
        assert site.status(id)["state"] == "queued"
        answer = site.client.get(f"/tasks/{id}/result", params={"timeout": 0.2})
        assert (answer.status_code, answer.json()["detail"]) == (504, f"task {id} has not ended after 0.2 s of waiting")
        assert site.client.delete(f"/tasks/{id}").json()["state"] == "cancelled"


def test_a_broker_that_is_away_for_a_moment_costs_503_and_no_stream(tmp_path: Path, server: Callable[..., Server]) -> None:
    broker = server()
    for site in site_at(tmp_path, broker.url):
        id = site.start(LONG)
        with site.events(id) as response:
            stream = messages(response)
            until("progress", stream)
            os.kill(broker.pid, signal.SIGSTOP)
            try:
                answer = site.client.get(f"/tasks/{id}")
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert "127.0.0.1" not in answer.text, "strangers are told where the broker is"
                assert site.client.get("/docs").elapsed.total_seconds() < 2, "the loop is held up"
            finally:
                os.kill(broker.pid, signal.SIGCONT)
            percent = float(site.status(id)["progress"]["percent"])
            assert any(kind == "progress" and data["percent"] > percent for kind, data in stream)
            site.client.delete(f"/tasks/{id}")
            assert list(stream)[-1][1]["state"] == "cancelled"
        assert "Traceback" not in site.web.log, site.web.log


def test_a_stream_that_begins_while_the_broker_is_away_waits_for_it(tmp_path: Path, server: Callable[..., Server]) -> None:
    broker = server(aof="always")
    for site in site_at(tmp_path, broker.url):
        id = site.start(LONG)
        broker.kill()
        with site.events(id) as response:
            assert response.status_code == 200, "a browser comes again after no other answer"
            stream = messages(response)
            assert next(stream) == ("", {}), "a comment: the broker cannot be reached"
            broker.start()
            until("status", stream)


WAITS, TASKS = 1000, 50  # so many requests, for the results of so many tasks
NOT_YET = 504


def test_a_thousand_requests_that_wait_cost_the_service_one_thread_and_one_connection(site: Site) -> None:
    pid = site.web.process.pid
    report = site.worker.app.task_named("reports.write").using(delay=3600)
    handles = site.worker.app.enqueue_many([report.s(**SHORT) for _ in range(TASKS)])
    before = descriptors(pid)
    codes, (of_threads, of_descriptors) = asyncio.run(ask_for_all(site, handles))
    assert codes == [409] * WAITS
    assert of_threads <= FEW
    assert of_descriptors <= before + WAITS + 100
    if site.worker.broker.startswith("redis"):
        with redis.Redis.from_url(site.worker.broker) as plain:
            assert len(plain.client_list()) < 30


async def ask_for_all(site: Site, handles: list[TaskHandle[Any]]) -> tuple[list[int], tuple[int, int]]:
    """The answers to a request for each result, all at once, and the most that the service held until the tasks were cancelled."""
    pid, limits = site.web.process.pid, httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=site.web.url, timeout=120, limits=limits, trust_env=False) as client:

        async def ended(id: str) -> httpx.Response:
            while True:  # a machine that is too busy to let all of them in within a minute is asked again, over the same connection
                response = await client.get(f"/tasks/{id}/result", params={"timeout": 60})
                if response.status_code != NOT_YET:
                    return response

        requests: list[asyncio.Future[httpx.Response]] = []
        for _ in range(WAITS // TASKS):  # not all at once: a machine may let no more than 128 wait for `accept`
            requests += [asyncio.ensure_future(ended(handle.id)) for handle in handles]
            while len(sockets(pid)) < len(requests):
                assert [request.result().text for request in requests if request.done()] == []
                await asyncio.sleep(0.1)
        most = held(pid)
        for at, handle in enumerate(handles):
            handle.revoke()
            if at % 10 == 0:
                most = max(most[0], threads(pid)), max(most[1], descriptors(pid))
        return [(await request).status_code for request in requests], most

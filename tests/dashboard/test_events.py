"""Live events: one watch for all tabs, and streams that end when they should."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from stem_iso import Stem, Worker
from stem_iso.dashboard import dashboard, event_source
from stem_iso.dashboard.event_source import MOST_A_TURN, MOST_TABS
from stem_iso.events import StartedEvent, encode
from tests.dashboard.conftest import served, visitor
from tests.isolate.calling import eventually


def messages(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
    """Kind and data of each."""
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
    kind = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))


class Reader:
    """Reads a stream beside the test."""

    def __init__(self, stream: Iterator[tuple[str, Any]]) -> None:
        self.read: list[tuple[str, Any]] = []
        threading.Thread(target=self._run, args=(stream,), daemon=True).start()

    def _run(self, stream: Iterator[tuple[str, Any]]) -> None:
        with suppress(httpx.HTTPError):  # the test closes it
            for each in stream:
                self.read.append(each)

    def of(self, id: str | None) -> list[str]:
        """Kinds of the events of a task; None: of any."""
        return [kind for kind, data in list(self.read) if "task_id" in data and id in (None, data["task_id"])]


def watched(broker_app: Stem) -> bool:
    with broker_app.broker_pool.borrow() as broker:
        return broker.listening()


def started(task_id: str, name: str = "thumbs.make") -> bytes:
    return encode(StartedEvent(at=1.0, worker_id="w", task_id=task_id, name=name, queue="images", run=0, attempt=0))


def test_what_happens_in_workers_comes_to_every_tab(app: Stem) -> None:
    with (
        served(dashboard(app)) as url,
        visitor(url) as site,
        Worker(app, concurrency=1),
        site.stream("GET", "/api/events") as first,
        site.stream("GET", "/api/events") as second,
    ):
        tabs = [Reader(messages(first)), Reader(messages(second))]
        while not all(tab.of(None) for tab in tabs):  # a worker asks once a second whether anybody listens
            app.enqueue("thumbs.make", {"path": "first"}).result(timeout=30)
        id = app.enqueue("thumbs.make", {"path": "<b>\n\u2028"}).id
        for tab in tabs:
            eventually(lambda tab=tab: "completed" in tab.of(id), "its end does not come")
            assert tab.of(id) == ["started", "completed"]


def test_there_is_one_watch_however_many_tabs(alone: Stem) -> None:
    opened = []

    def open() -> Any:
        opened.append(1)
        return alone.open_broker()

    asgi = dashboard(alone)
    asgi.state.context.events._open = open
    with served(asgi) as url, visitor(url) as site:
        with site.stream("GET", "/api/events") as one, site.stream("GET", "/api/events") as two, site.stream("GET", "/api/events") as three:
            tabs = [messages(each) for each in (one, two, three)]  # who lets go of one closes it
            assert [next(tab)[0] for tab in tabs] == ["hello"] * 3
            assert asgi.state.context.events.tabs == 3
        eventually(lambda: asgi.state.context.events.tabs == 0, "a tab that is closed stays")
    assert len(opened) == 1


def test_a_stream_of_one_task_has_its_events_alone(alone: Stem) -> None:
    with served(dashboard(alone)) as url, visitor(url) as site, site.stream("GET", "/api/events?task=mine") as answer:
        tab = messages(answer)
        assert next(tab)[0] == "hello"
        eventually(lambda: watched(alone), "nobody listens")
        with alone.broker_pool.borrow() as broker:
            broker.emit([started(f"other-{n}") for n in range(3 * MOST_A_TURN)] + [started("mine")])
        assert next(tab)[1]["task_id"] == "mine"


def test_more_than_anybody_reads_is_skipped_and_said_so(alone: Stem) -> None:
    with served(dashboard(alone)) as url, visitor(url) as site, site.stream("GET", "/api/events") as answer:
        tab = messages(answer)
        assert next(tab)[0] == "hello"
        eventually(lambda: watched(alone), "nobody listens")
        with alone.broker_pool.borrow() as broker:
            broker.emit([started(f"task-{n}") for n in range(3 * MOST_A_TURN)])
        got, skipped = 0, 0
        for kind, data in tab:
            skipped += data["count"] if kind == "skipped" else 0
            got += kind == "started"
            if data.get("task_id") == f"task-{3 * MOST_A_TURN - 1}":
                break
        assert got + skipped == 3 * MOST_A_TURN and skipped >= MOST_A_TURN


def test_silence_has_a_heartbeat(alone: Stem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_source, "BEAT", 0.1)
    with served(dashboard(alone)) as url, visitor(url) as site, site.stream("GET", "/api/events") as answer:
        assert next(line for line in answer.iter_lines() if line.startswith(":")) == ": beat"


def test_streams_end_when_the_server_stops(alone: Stem) -> None:
    asgi = dashboard(alone)
    with served(asgi) as url, visitor(url) as site, site.stream("GET", "/api/events") as answer:
        tab = messages(answer)
        assert next(tab)[0] == "hello"
        asgi.state.context.stop()
        assert list(tab) == []
        names = [thread.name for thread in threading.enumerate()]
        eventually(lambda: "stem_iso: dashboard events" not in [thread.name for thread in threading.enumerate()], f"it goes on: {names}")


def test_too_many_tabs_are_sent_away(alone: Stem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_source, "MOST_TABS", 1)
    with served(dashboard(alone)) as url, visitor(url) as site, site.stream("GET", "/api/events") as one:
        first = messages(one)
        assert next(first)[0] == "hello"
        with site.stream("GET", "/api/events") as two:
            assert [kind for kind, _ in messages(two)] == ["full"]
    assert MOST_TABS > 1


def test_bulk_says_how_far_it_is(alone: Stem) -> None:
    ids = [alone.enqueue("thumbs.make", {"path": str(n)}).id for n in range(3)]
    with served(dashboard(alone)) as url, visitor(url) as site, site.stream("GET", "/api/events") as answer:
        tab = messages(answer)
        assert next(tab)[0] == "hello"
        with visitor(url) as other:
            assert other.post("/api/bulk", json={"action": "revoke", "queue": "images"}, headers={"X-Stem-Iso": "1"}).status_code == 200
        progress = next(data for kind, data in tab if kind == "bulk")
        assert progress == {"type": "bulk", "action": "revoke", "matched": len(ids), "done": len(ids), "refused": 0}


def test_an_event_that_no_json_can_hold_ends_no_stream() -> None:
    deep: Any = []
    for _ in range(100_000):  # more than any limit of recursion that another test may have set
        deep = [deep]
    assert event_source.message("progress", {"type": "progress", "data": deep}) == b'event: progress\ndata: {"type":"progress"}\n\n'

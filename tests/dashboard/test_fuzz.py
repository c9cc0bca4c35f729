"""Whatever is asked, of whatever route: no answer is a fault of the server, and each error says what is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from stem_iso import Stem
from stem_iso.brokers.base import WorkerInfo
from stem_iso.client.worker_control import ACTIONS
from stem_iso.dashboard import dashboard, orders
from stem_iso.dashboard.api import ROUTES
from tests.dashboard.conftest import ORDER, declare

MANY = int(os.environ.get("STEM_ISO_FUZZ", "1000"))  # by hand: ten thousand
ASKED = [row for row in ROUTES if row.path != "/api/events"]  # it never ends
words = st.sampled_from(
    ["failed", "queued", "images", "thumbs.*", "1", "0", "-1", "true", "10m", "2026-01-31", "retry", "*", "..", "%2F", "\0"]
)
texts = words | st.text(max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts | st.sampled_from(ACTIONS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, list[str]]]:
    """A visitor whose client raises what the server does not catch, and ids of tasks in several states."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orders, "WAIT", 0.0)
        app = Stem(f"sqlite:///{tmp_path_factory.mktemp('fuzz')}/jobs.db")
        declare(app)
        ids = [app.enqueue("thumbs.make", {"path": "cat.png"}, delay=delay).id for delay in (0, 3600)]
        app.schedule("nightly", app.tasks["thumbs.make"].s(path="all"), every=86_400)
        with app.broker_pool.borrow() as broker:
            broker.beat(WorkerInfo(id="w-1", boot="b", hostname="h", pid=1, queues=["images"], seats=1, spares=0))
        with TestClient(dashboard(app)) as client:
            yield client, [*ids, "nightly", "images", "w-1"]
        app.close()


@pytest.mark.slow
@settings(max_examples=MANY, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_request_is_a_fault_of_the_server(fuzzed: tuple[TestClient, list[str]], data: st.DataObject) -> None:
    client, known = fuzzed
    row = data.draw(st.sampled_from(ASKED))
    path = row.path
    if row.in_path is not None:
        name = data.draw(st.sampled_from(known) | texts.filter(bool))
        path = path.replace(f"{{{row.in_path}:path}}", quote(name, safe=data.draw(st.sampled_from(["", "/"]))))
    names = st.sampled_from([each.name for each in row.query] or ["x"])
    query = data.draw(st.lists(st.tuples(names if data.draw(st.integers(0, 3)) else texts, texts), max_size=4))
    content: Any = None
    if row.method == "POST":
        keys = st.sampled_from([each.name for each in row.body or ()] or ["x"])
        content = data.draw(
            st.binary(max_size=50) | st.dictionaries(keys | texts, values, max_size=4).map(lambda body: json.dumps(body).encode())
        )
    answer = client.request(row.method, path, params=query, content=content, headers=ORDER)
    assert answer.status_code in (200, 303, 400, 404, 405, 409, 413), (row, path, query, content, answer.text)
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert error["type"] and error["message"]


def pages() -> st.SearchStrategy[str]:
    known = ["/", "/tasks", "/failures", "/queues", "/workers", "/schedules", "/limits", "/actions", "/tasks/x", "/login", "/static/x"]
    return st.sampled_from(known) | texts.map(lambda text: "/" + quote(text, safe="/"))


@pytest.mark.slow
@settings(max_examples=MANY // 2, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pages(),
    st.lists(st.tuples(st.sampled_from(["state", "queue", "name", "text", "since", "until", "cursor", "limit", "order"]) | texts, texts)),
)
def test_no_page_is_a_fault_of_the_server(fuzzed: tuple[TestClient, list[str]], path: str, query: list[tuple[str, str]]) -> None:
    client, _ = fuzzed
    answer = client.get(path, params=query, follow_redirects=False)
    assert answer.status_code in (200, 303, 307, 400, 404), (path, query, answer.text)
    assert b"Traceback" not in answer.content


@pytest.mark.slow
def test_the_document_describes_what_is_answered(fuzzed: tuple[TestClient, list[str]]) -> None:
    """Every answer of every route that shows something has the shape that the document says."""
    schemathesis = pytest.importorskip("schemathesis")
    client, _ = fuzzed
    schema = schemathesis.openapi.from_dict(client.get("/api/openapi.json").json())
    shown = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.method.upper() != "GET" or operation.path.endswith("events"):
            continue
        case = operation.Case(path_parameters={"id": _first(client)} if "{id}" in operation.path else {})
        answer = client.get(case.formatted_path)
        assert answer.status_code == 200, answer.text
        operation.validate_response(schemathesis.Response.from_any(answer))
        shown += 1
    assert shown == sum(row.method == "GET" for row in ASKED)


def _first(client: TestClient) -> str:
    return str(client.get("/api/tasks").json()["tasks"][0]["id"])

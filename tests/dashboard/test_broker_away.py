"""A broker that goes away and comes back under an open dashboard."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from stem_iso import Stem
from stem_iso.dashboard import dashboard
from tests.dashboard.conftest import ORDER, declare, served, visitor
from tests.dashboard.test_events import messages
from tests.isolate.calling import eventually
from tests.servers.server import Server

pytestmark = pytest.mark.slow

SEEN = ("tasks", "tasks/x", "queues", "workers", "overview", "failures", "schedules", "limits", "actions", "stats")


def test_it_says_so_and_recovers(server: Callable[..., Server]) -> None:
    redis = server()
    app = Stem(redis.url)
    declare(app)
    id = app.enqueue("thumbs.make", {"path": "cat.png"}).id
    with served(dashboard(app)) as url, visitor(url) as site, visitor(url) as other, other.stream("GET", "/api/events") as answer:
        live = messages(answer)
        assert next(live)[0] == "hello" and site.get("/readyz").status_code == 200
        redis.kill()
        for path in SEEN:
            refused = site.get(f"/api/{path}")
            assert refused.status_code == 503, path
            assert refused.json()["error"]["type"] == "BrokerUnavailable" and refused.headers["retry-after"]
        order = site.post(f"/api/tasks/{id}/revoke", headers=ORDER)
        assert order.status_code == 503
        assert (site.get("/healthz").status_code, site.get("/readyz").status_code) == (200, 503)
        page = site.get("/tasks")
        assert page.status_code == 503 and page.headers["content-type"].startswith("text/html")
        assert next(data for kind, data in live if kind == "broker")["up"] is False
        redis.start()
        eventually(lambda: site.get("/readyz").status_code == 200, "it stays away", 60)
        assert next(data for kind, data in live if kind == "broker")["up"] is True
        new = app.enqueue("thumbs.make", {"path": "cat.png"}).id
        assert site.get(f"/api/tasks/{new}").json()["state"] == "queued"
    app.close()


def test_no_password_of_the_broker_is_shown(server: Callable[..., Server]) -> None:
    app = Stem("redis://ann:tr0ub4dor@127.0.0.1:1/0")
    with served(dashboard(app)) as url, visitor(url) as site:
        for path in ("/api/overview", "/api/tasks", "/", "/tasks", "/readyz", "/api/openapi.json", "/metrics"):
            answer: httpx.Response = site.get(path)
            assert "tr0ub4dor" not in answer.text + str(answer.headers), path
    app.close()

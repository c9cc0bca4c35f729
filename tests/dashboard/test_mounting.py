"""The dashboard below a path of another application: FastAPI and Django."""

from __future__ import annotations

import re
from typing import Any

import pytest

from stem_iso import Stem
from stem_iso.dashboard import dashboard
from tests.dashboard.conftest import ORDER, served, visitor

TOKEN = "a token that nobody guesses"
ADDRESS = re.compile(r'(?:href|src|action)="(/[^"]*)"')  # scripts put the rest below `data-root`


def in_fastapi(asgi: Any) -> Any:
    fastapi = pytest.importorskip("fastapi")
    outer = fastapi.FastAPI()

    @outer.get("/api/tasks")
    def tasks() -> str:
        return "the application's own"

    outer.mount("/ops", asgi)
    return outer


def in_django(asgi: Any) -> Any:
    """As docs/dashboard.md says of `asgi.py`."""

    async def django(scope: Any, receive: Any, send: Any) -> None:
        body = b'"the application\'s own"'
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/ops/"):
            await asgi({**scope, "root_path": scope.get("root_path", "") + "/ops"}, receive, send)
        else:
            await django(scope, receive, send)

    return application


@pytest.mark.parametrize("outer", [in_fastapi, in_django])
def test_below_a_path_all_is_as_alone(alone: Stem, outer: Any) -> None:
    id = alone.enqueue("thumbs.make", {"path": "cat.png"}).id
    with served(outer(dashboard(alone, token=TOKEN)), lifespan="off") as url, visitor(url) as site:
        assert site.get("/api/tasks").json() == "the application's own"
        assert site.get("/ops/api/tasks").status_code == 401
        page = site.get("/ops/tasks?state=failed")
        assert page.headers["location"] == "/ops/login?next=%2Ftasks%3Fstate%3Dfailed"
        login = site.post("/ops/login", data={"token": TOKEN, "next": "/tasks"})
        assert login.headers["location"] == "/ops/tasks" and "Path=/ops" in login.headers["set-cookie"]
        assert site.get("/ops/api/tasks").json()["tasks"][0]["id"] == id
        assert site.get("/ops/api/openapi.json").json()["servers"] == [{"url": "/ops"}]
        assert site.post(f"/ops/api/tasks/{id}/revoke", headers=ORDER).json()["task"]["state"] == "cancelled"
        assert site.get("/ops/healthz").status_code == 200


@pytest.mark.parametrize("outer", [in_fastapi, in_django])
def test_every_address_of_every_page_leads_below_that_path(alone: Stem, outer: Any) -> None:
    id = alone.enqueue("thumbs.make", {"path": "cat.png"}).id
    with served(outer(dashboard(alone)), lifespan="off") as url, visitor(url) as site:
        for path in ("", "tasks", f"tasks/{id}", "failures", "queues", "workers", "schedules", "limits", "actions"):
            page = site.get(f"/ops/{path}")
            assert page.status_code == 200, path
            addresses = ADDRESS.findall(page.text)
            assert addresses and [address for address in addresses if not address.startswith("/ops/")] == [], path
            for address in {each for each in addresses if "/static/" in each}:
                assert site.get(address).status_code == 200, address

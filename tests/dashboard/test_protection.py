"""Who may come in, and what a page of another site can make a browser do."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from stem_iso import InvalidOptions, Stem
from stem_iso.dashboard import dashboard, server
from stem_iso.dashboard.protection import cookie_of, host_of, session_holds, session_of
from stem_iso.dashboard.server import local_path
from tests.dashboard.conftest import ORDER, Open, served, visitor

TOKEN = "a token that nobody guesses"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def test_without_the_token_a_program_is_refused_and_a_browser_gets_the_form(opened: Open) -> None:
    site = opened(token=TOKEN)
    refused = site.get("/api/actions")
    assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["error"]["type"] == "Unauthorized"
    page = site.get("/tasks?state=failed")
    assert page.status_code == 303 and page.headers["location"] == "/login?next=%2Ftasks%3Fstate%3Dfailed"
    assert site.post("/api/queues/images/purge", headers=ORDER).status_code == 401
    assert site.get("/api/actions", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_the_token_lets_in_and_needs_no_header_of_ours(opened: Open) -> None:
    site = opened(BEARER, token=TOKEN)
    assert site.get("/api/openapi.json").status_code == 200
    assert site.post("/api/queues/images/purge").status_code == 200


def test_the_form_gives_a_session_that_no_script_can_read(opened: Open) -> None:
    site = opened(token=TOKEN)
    assert site.post("/login", data={"token": "wrong"}).status_code == 401
    answer = site.post("/login", data={"token": TOKEN, "next": "/tasks?state=failed"})
    assert answer.status_code == 303 and answer.headers["location"] == "/tasks?state=failed"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and TOKEN not in answer.headers["set-cookie"]
    assert site.get("/api/openapi.json").status_code == 200
    assert site.post("/api/queues/images/purge").status_code == 403  # another site's form would send the cookie, too
    assert site.post("/api/queues/images/purge", headers=ORDER).status_code == 200
    assert site.post("/logout", headers=ORDER).status_code == 303
    assert site.get("/api/openapi.json").status_code == 401


@pytest.mark.parametrize("forged", ["", ".", "99999999999.", "9" * 40, f"9999999999.{'0' * 64}", "x.y", "１.１"])
def test_a_forged_session_lets_nobody_in(forged: str) -> None:
    assert not session_holds(TOKEN, forged, 0.0)


def test_a_session_ends_with_its_time_and_with_another_token() -> None:
    session = session_of(TOKEN, 1000)
    assert session_holds(TOKEN, session, 999.0)
    assert not session_holds(TOKEN, session, 1000.0) and not session_holds("another", session, 999.0)


def test_a_forged_session_is_refused_by_the_server(opened: Open) -> None:
    site = opened(token=TOKEN)
    site.cookies.set(cookie_of(TOKEN), f"9999999999.{'0' * 64}")
    assert site.get("/api/openapi.json").status_code == 401


def test_without_a_token_an_order_still_needs_the_header(opened: Open) -> None:
    site = opened()
    refused = site.post("/api/queues/images/purge")
    assert refused.status_code == 403 and refused.json()["error"]["type"] == "Forgery"
    assert (
        site.post("/api/queues/images/purge", headers={"Authorization": "Basic Og=="}).status_code == 403
    )  # a browser adds that by itself
    assert site.post("/api/queues/images/purge", headers=ORDER).status_code == 200


def test_read_only_refuses_all_orders(opened: Open) -> None:
    site = opened(BEARER, token=TOKEN, read_only=True)
    for path in ("/api/queues/images/purge", "/api/bulk", "/api/tasks/x/retry", "/api/workers/x/control"):
        refused = site.post(path, headers=ORDER)
        assert refused.status_code == 403 and refused.json()["error"]["type"] == "ReadOnly", path
    assert site.get("/api/actions").status_code == 200


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_applications_own_callable_decides(opened: Open, kind: str) -> None:
    def allow(request: Any) -> bool:
        return bool(request.headers.get("x-user") == "ann")

    async def aallow(request: Any) -> bool:
        return allow(request)

    site = opened(auth=allow if kind == "sync" else aallow)
    assert site.get("/api/openapi.json").status_code == 403 and site.get("/tasks").status_code == 403
    assert site.get("/api/openapi.json", headers={"x-user": "ann"}).status_code == 200


def test_a_callable_that_fails_lets_nobody_in(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    def fails(request: Any) -> bool:
        raise RuntimeError("the directory is away")

    with caplog.at_level(logging.ERROR):
        assert opened(auth=fails).get("/api/openapi.json").status_code == 403
    assert "the directory is away" in caplog.text


def test_probes_need_no_token(opened: Open) -> None:
    site = opened(token=TOKEN)
    assert [site.get(path).status_code for path in ("/healthz", "/metrics")] == [200, 200]


def test_what_is_open_to_all_does_not_say_where_the_broker_is() -> None:
    app = Stem("redis://127.0.0.1:1/0")
    with served(dashboard(app, token=TOKEN)) as url, visitor(url) as site:
        for path in ("/readyz", "/metrics", "/login", "/"):
            assert "redis" not in site.get(path).text, path
        assert site.get("/readyz").status_code == 503
        assert "redis://127.0.0.1:1/0" in site.get("/api/tasks", headers=BEARER).text
    app.close()


def test_probes_that_wait_for_the_broker_keep_no_visitor_waiting(alone: Stem, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are open to all, and a broker that hangs lets each wait for seconds. The server answers all others meanwhile."""
    answers = threading.Event()
    monkeypatch.setattr(server, "_reach", lambda app: answers.wait(120))
    with served(dashboard(alone, auth=lambda request: True)) as url, ThreadPoolExecutor(8) as many, visitor(url) as site:
        waiting = [many.submit(site.get, "/readyz") for _ in range(8)]
        try:
            for path in ("/api/openapi.json", "/api/tasks", "/queues"):
                assert site.get(path).status_code == 200
            assert not any(each.done() for each in waiting)
        finally:
            answers.set()
        assert {each.result().status_code for each in waiting} == {200}


def test_a_name_that_points_to_loopback_is_refused(opened: Open) -> None:
    site = opened(hosts=("localhost", "127.0.0.1"))
    refused = site.get("/api/openapi.json", headers={"Host": "evil.example:8080"})
    assert refused.status_code == 421 and "evil.example" in refused.text
    assert site.get("/healthz", headers={"Host": "evil.example"}).status_code == 421
    assert site.get("/api/openapi.json", headers={"Host": "LOCALHOST:9"}).status_code == 200


@pytest.mark.parametrize(("written", "host"), [("[::1]:8080", "::1"), ("Localhost", "localhost"), ("127.0.0.1:80", "127.0.0.1"), ("", "")])
def test_the_host_is_the_name_alone(written: str, host: str) -> None:
    assert host_of(written) == host


@pytest.mark.parametrize("path", ["/api/openapi.json", "/healthz", "/api/nothing", "/api/tasks?limit=0"])
def test_every_answer_tells_the_browser_what_it_may_do(opened: Open, path: str) -> None:
    headers = opened().get(path).headers
    policy = headers["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("wanted", ["//evil.example", "https://evil.example", "/\\evil.example", "", "javascript:alert(1)", "/a\nb"])
def test_after_the_login_nobody_is_sent_elsewhere(wanted: str) -> None:
    assert local_path(wanted) == "/"


def test_an_empty_token_is_no_token() -> None:
    with pytest.raises(InvalidOptions, match="token"):
        dashboard(Stem("memory://"), token=" ")


def test_two_dashboards_at_one_name_do_not_log_a_visitor_out_of_each_other(opened: Open) -> None:
    """A browser sends the cookies of one port to all, and those of `/` to `/ops`."""
    one, other = opened(token=TOKEN), opened(token="another token")
    one.post("/login", data={"token": TOKEN})
    other.cookies.update(one.cookies)
    other.post("/login", data={"token": "another token"})
    one.cookies.update(other.cookies)
    assert [site.get("/api/openapi.json").status_code for site in (one, other)] == [200, 200]
    one.post("/logout", headers=ORDER)
    assert one.get("/api/openapi.json").status_code == 401


@pytest.mark.parametrize("body", [b"&".join([b"token=x"] * 50), b"token=" + b"x" * 20_000, b"\xff=%ff&token=%00", b""])
def test_no_form_is_a_fault_of_the_server(opened: Open, body: bytes) -> None:
    """Whoever can reach the dashboard can send one."""
    assert opened(token=TOKEN).post("/login", content=body).status_code in (401, 413)


def test_nobody_is_sent_to_the_name_that_he_called_the_server(opened: Open) -> None:
    answer = opened().get("/queues/", headers={"Host": "evil.example"})
    assert answer.status_code == 404 and "location" not in answer.headers


@pytest.mark.parametrize("path", ["/fails", "/api/fails"])
def test_a_fault_of_the_server_tells_the_browser_what_it_may_do_too(alone: Stem, path: str) -> None:
    def fails(request: Any) -> None:
        raise RuntimeError("tr0ub4dor")

    asgi = dashboard(alone)
    asgi.router.routes[:0] = [Route("/fails", fails), Route("/api/fails", fails)]
    answer = TestClient(asgi, raise_server_exceptions=False).get(path)
    assert answer.status_code == 500 and "tr0ub4dor" not in answer.text
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"] and answer.headers["cache-control"] == "no-store"

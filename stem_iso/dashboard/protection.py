"""Protection of the dashboard: who may come in, from where, and what a browser may do with the answers.

    request ── host ──> visitor ──> read-only ──> forgery ──> routes ──> answer, with security headers
                │          │            │            │
               421     401 · 403 · login form  403  403

Rules
 1. Open to all: `/healthz`, `/readyz`, `/metrics`, the login form, and the files that pages are made of (`/static/`).
 2. A visitor shows the token (`Authorization: Bearer …`, or a session that the login form gave for it), or `auth(request)` knows him. Where
    both are set, either will do; where neither is, everybody may come in, and whoever starts the server sees to it that only he can.
 3. A session is an expiry signed with the token: nothing is kept, another token ends all of them, and the token itself is in no cookie.
 4. Forgery: a browser adds cookies, and a password that was typed (Basic), to whatever another site makes it send, but no header of ours.
    So what changes anything needs `X-Stem-Iso: 1`, or a bearer token, which no browser adds by itself either.
 5. `hosts`: names under which the server may be called. A page of another site that lets its name point to 127.0.0.1 (DNS rebinding) is the
    same site to a browser, but sends its own name.
"""

from __future__ import annotations

import hashlib
import hmac
import inspect
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from stem_iso.dashboard.answers import error_answer
from stem_iso.dashboard.paths import LOGIN, LOGOUT, STATIC, is_api, is_open, mounted_at, route_path

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from stem_iso.dashboard.context import DashboardContext

SESSION_LIFE = 12 * 3600  # seconds
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK = ("localhost", "127.0.0.1", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

NEVER_STORED = {"cache-control": "no-store"}

logger = logging.getLogger(__name__)


# -- sessions --------------------------------------------------------------------------------------------------------------------------


def same(one: str, other: str) -> bool:
    """In a time that says nothing of where they differ, nor of their lengths."""
    return hmac.compare_digest(*(hashlib.sha256(each.encode("utf-8", "surrogatepass")).digest() for each in (one, other)))


def session_of(token: str, expires: int) -> str:
    return f"{expires}.{_signed(token, str(expires))}"


def cookie_of(token: str) -> str:
    """The name of the session's cookie. It differs by token: to a browser all ports of a machine are one site, and a cookie of `/` is sent
    to `/ops` too, so two dashboards with one name would log their visitors out of each other."""
    return f"stem_iso_session_{_signed(token, 'name')[:12]}"


def _signed(token: str, text: str) -> str:
    key = hashlib.sha256(b"stem_iso dashboard session\0" + token.encode("utf-8", "surrogatepass")).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def session_holds(token: str, session: str, now: float) -> bool:
    expires, _, _ = session.partition(".")
    return (
        expires.isascii()
        and expires.isdigit()
        and len(expires) < 12
        and int(expires) > now
        and same(session, session_of(token, int(expires)))
    )


def host_of(written: str) -> str:
    """Of `[::1]:8080` and `Localhost:8080` the name alone."""
    if written.startswith("["):
        return written[1:].partition("]")[0].lower()
    return written.rpartition(":")[0].lower() if written.count(":") == 1 else written.lower()


def _bears(request: Request) -> bool:
    return request.headers.get("authorization", "").partition(" ")[0].lower() == "bearer"


# -- the gate --------------------------------------------------------------------------------------------------------------------------


class Protection:
    """ASGI middleware around all routes. `hosts`: None where any name will do."""

    def __init__(self, inner: ASGIApp, context: DashboardContext, hosts: Sequence[str] | None) -> None:
        self._inner, self._context = inner, context
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._inner(scope, receive, send)
            return
        request = Request(scope, receive)
        refusal = await self._refusal(request)
        await (refusal or self._inner)(scope, receive, _with_headers(scope, send))

    async def _refusal(self, request: Request) -> Response | None:
        path, method = route_path(request.scope), request.method
        host = host_of(request.headers.get("host", ""))
        if self._hosts is not None and host not in self._hosts and not host.endswith(".localhost"):
            return self._refuse(request, 421, "Misdirected", f"this dashboard is not called {ascii(host)[1:-1]!r}; see --allowed-host")
        if is_open(request.scope):
            return None
        if not await self._knows(request):
            return self._turned_away(request)
        if method in SAFE:
            return None
        if self._context.read_only and path != LOGOUT:
            return self._refuse(request, 403, "ReadOnly", "this dashboard only shows; it was started as read-only")
        if not _bears(request) and request.headers.get("x-stem-iso") != "1":
            return self._refuse(request, 403, "Forgery", "what changes anything needs the header `X-Stem-Iso: 1`, or a bearer token")
        return None

    async def _knows(self, request: Request) -> bool:
        context = self._context
        if context.token is None and context.auth is None:
            return True
        if context.token is not None and self._shows_token(request, context.token):
            return True
        return context.auth is not None and await self._allowed(request)

    def _shows_token(self, request: Request, token: str) -> bool:
        kind, _, shown = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and same(shown.strip(), token):
            return True
        session = request.cookies.get(cookie_of(token))
        return session is not None and session_holds(token, session, self._context.app.clock())

    async def _allowed(self, request: Request) -> bool:
        """What the application's own callable says; one that fails lets nobody in."""
        auth = self._context.auth
        assert auth is not None
        try:
            answer: Any = auth(request) if inspect.iscoroutinefunction(auth) else await self._context.ask_auth(request)
            return bool(await answer if inspect.isawaitable(answer) else answer)
        except Exception:  # user code: whatever it raises is no yes
            logger.exception("the dashboard's auth callable failed")
            return False

    def _turned_away(self, request: Request) -> Response:
        if self._context.token is None:
            return self._refuse(request, 403, "Forbidden", "the application that this dashboard belongs to does not let you in")
        if is_api(request.scope) or request.method not in SAFE:
            refused = self._refuse(request, 401, "Unauthorized", "give the dashboard's token: `Authorization: Bearer …`")
            refused.headers["www-authenticate"] = "Bearer"
            return refused
        query = request.url.query
        wanted = route_path(request.scope) + (f"?{query}" if query else "")
        return RedirectResponse(f"{mounted_at(request.scope)}{LOGIN}?next={quote(wanted, safe='')}", 303)

    def _refuse(self, request: Request, status: int, kind: str, message: str) -> Response:
        return error_answer(self._context, request, status, kind, message)


def _with_headers(scope: Scope, send: Send) -> Send:
    static = route_path(scope).startswith(STATIC)

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            if not static:
                headers.update(NEVER_STORED)
        await send(message)

    return sending

"""Server of the dashboard: one ASGI application of pages, API, probes and login.

    Protection ──> router ──┬──> pages.routes            HTML
                            ├──> api.routes              JSON, server-sent events
                            ├──> /login, /logout         a session for a token
                            └──> /healthz /readyz /metrics

Mounted below a path of another application it works as it does alone: every address is made of `root_path`. It opens nothing before its
first request, and what is in the background begins with whom it serves: a mounted application may never learn that the server starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from stem_iso.dashboard import api, metrics, openapi, pages
from stem_iso.dashboard.answers import JsonAnswer, error_answer, field_of, status_of_error
from stem_iso.dashboard.context import DashboardContext
from stem_iso.dashboard.event_source import EventSource
from stem_iso.dashboard.paths import LOGIN, LOGOUT, mounted_at
from stem_iso.dashboard.protection import HEADERS, NEVER_STORED, SESSION_LIFE, Protection, cookie_of, same, session_of
from stem_iso.errors import BrokerUnavailable, InvalidOptions, StemError
from stem_iso.validation import flag

if TYPE_CHECKING:
    from starlette.requests import Request

    from stem_iso.app import Stem

WRONG_TOKEN_WAIT = 0.5  # seconds before a wrong token is refused: for whoever guesses
LONGEST_FORM, MOST_FIELDS = 16_384, 20  # bytes; a form of ours has three


def build(app: Stem, token: str | None, read_only: bool, auth: Callable[[Any], Any] | None, hosts: Sequence[str] | None) -> Starlette:
    """As `stem_iso.dashboard.dashboard`."""
    _check(token, read_only, auth)
    events = EventSource(app.open_broker)
    context = DashboardContext(app, events, pages.error_page, read_only=read_only, token=token, auth=auth)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            context.stop()

    made = Starlette(
        routes=[*_own_routes(context), *api.routes(context), *pages.routes(context)],
        middleware=[Middleware(Protection, context=context, hosts=hosts)],
        exception_handlers={
            StemError: _stem_error(context),
            HTTPException: _http_error(context),
            Exception: _unexpected(context),
        },
        lifespan=lifespan,
    )
    made.router.redirect_slashes = False  # it would send a visitor to whatever name the header `Host` has
    made.state.context = context
    return made


def _check(token: object, read_only: object, auth: object) -> None:
    if token is not None and (not isinstance(token, str) or not token.strip()):
        raise InvalidOptions("token: must be a non-empty string; leave it out where nobody is asked for one")
    flag("read_only", read_only)
    if auth is not None and not callable(auth):
        raise InvalidOptions(f"auth: {auth!r} is not callable; give auth(request) -> bool")


def _own_routes(context: DashboardContext) -> list[Route]:
    of_broker = metrics.BrokerMetrics(context.app)

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        try:
            await context.probe(_reach, context.app)
        except BrokerUnavailable as error:  # why, and where the broker is, is for those who came in
            return error_answer(context, request, 503, type(error).__name__, "the broker does not answer")
        return PlainTextResponse("ok\n")

    async def metrics_text(request: Request) -> Response:
        return Response(await context.probe(of_broker.text), media_type=metrics.CONTENT_TYPE)

    async def document(request: Request) -> Response:
        return JsonAnswer(openapi.document(mounted_at(request.scope)))

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics_text),
        Route("/api/openapi.json", document),
        Route(LOGIN, _login_page(context), methods=["GET"]),
        Route(LOGIN, _login(context), methods=["POST"]),
        Route(LOGOUT, _logout(context), methods=["POST"]),
    ]


def _reach(app: Stem) -> None:
    with app.broker_pool.borrow() as broker:
        broker.paused()


# -- login ---------------------------------------------------------------------------------------------------------------------------------


def _login_page(context: DashboardContext) -> Callable[[Request], Any]:
    async def login_page(request: Request) -> Response:
        if context.token is None:
            return RedirectResponse(f"{mounted_at(request.scope)}/", 303)
        return pages.login_page(context, request, False)

    return login_page


def _login(context: DashboardContext) -> Callable[[Request], Any]:
    async def login(request: Request) -> Response:
        form = _fields(await api.body_of(request, LONGEST_FORM))
        shown = form.get("token", [""])[0].strip()
        if context.token is None or not same(shown, context.token):
            await asyncio.sleep(WRONG_TOKEN_WAIT)
            return pages.login_page(context, request, True)
        root = mounted_at(request.scope)
        answer = RedirectResponse(root + local_path(form.get("next", ["/"])[0]), 303)
        session = session_of(context.token, int(context.app.clock()) + SESSION_LIFE)
        secure = request.url.scheme == "https"
        answer.set_cookie(
            cookie_of(context.token), session, SESSION_LIFE, path=root or "/", httponly=True, samesite="strict", secure=secure
        )
        return answer

    return login


def _logout(context: DashboardContext) -> Callable[[Request], Any]:
    async def logout(request: Request) -> Response:
        root = mounted_at(request.scope)
        answer = RedirectResponse(f"{root}{LOGIN}", 303)
        if context.token is not None:
            answer.delete_cookie(cookie_of(context.token), path=root or "/", httponly=True, samesite="strict")
        return answer

    return logout


def local_path(wanted: str) -> str:
    """A path of this dashboard; "/" for anything that a browser could take for another site."""
    plain = wanted.isascii() and wanted.isprintable() and "\\" not in wanted
    return wanted if plain and wanted.startswith("/") and not wanted.startswith("//") else "/"


def _fields(body: bytes) -> dict[str, list[str]]:
    """Of a form; of one with more fields than ours could have, none."""
    try:
        return parse_qs(body.decode("utf-8", "replace"), max_num_fields=MOST_FIELDS)
    except ValueError:
        return {}


# -- what goes wrong -----------------------------------------------------------------------------------------------------------------------

ErrorHandler = Callable[["Request", Exception], Any]


def _stem_error(context: DashboardContext) -> ErrorHandler:
    async def answer(request: Request, error: Exception) -> Response:
        return error_answer(context, request, status_of_error(error), type(error).__name__, str(error), field_of(error))

    return answer


def _http_error(context: DashboardContext) -> ErrorHandler:
    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = ascii(request.url.path)[1:-1][:200]
        message = f"nothing answers at {path}" if error.status_code == 404 else f"{request.method} is not for {path}"
        made = error_answer(context, request, error.status_code, "NotFound" if error.status_code == 404 else "MethodNotAllowed", message)
        for name, value in (error.headers or {}).items():
            made.headers[name] = value
        return made

    return answer


def _unexpected(context: DashboardContext) -> ErrorHandler:
    """A fault of ours; Starlette raises it once more, for the server's log."""

    async def answer(request: Request, error: Exception) -> Response:
        made = error_answer(context, request, 500, "InternalError", "this went wrong in the dashboard itself; its log says how")
        made.headers.update(HEADERS | NEVER_STORED)  # Starlette answers this one outside of `Protection`
        return made

    return answer

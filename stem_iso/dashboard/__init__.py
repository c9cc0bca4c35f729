"""Dashboard: pages and a JSON API over one broker, as an ASGI application (extra `dashboard`).

    browser ──> server (protection) ──┬──> pages ──┐
    program ──────────────────────────┴──> api ────┴──> snapshots ──> app ──> broker        what is seen
                                           │  └───────> orders ─────> app ──> broker        what is done
                                           └──────────> event_source ──> one watch of all events, for every tab

`from stem_iso.dashboard import dashboard; asgi = dashboard(app, token="…")`, or `stem-iso dashboard`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from stem_iso.app import Stem


def dashboard(
    app: Stem,
    *,
    token: str | None = None,
    read_only: bool = False,
    auth: Callable[[Any], Any] | None = None,
    hosts: Sequence[str] | None = None,
) -> Starlette:
    """The dashboard of this application, to be served, or mounted in another ASGI application below any path.

    `token`: who shows it may come in (`Authorization: Bearer …`, or the login form). `auth(request) -> bool`, sync or async, gets a
    `starlette.requests.Request`; where both are given, either will do. With neither, everybody who reaches it may do everything: see to it
    that only you do. `read_only`: nothing can be changed. `hosts`: names under which it may be called, None for any.

    Raises InvalidOptions, also where the extra `dashboard` is not installed.
    """
    try:
        from stem_iso.dashboard.server import build
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] in ("starlette", "jinja2", "prometheus_client"):
            from stem_iso.errors import InvalidOptions

            raise InvalidOptions("dashboard: needs the extra of this name: pip install 'stem_iso[dashboard]'") from None
        raise
    return build(app, token, read_only, auth, hosts)

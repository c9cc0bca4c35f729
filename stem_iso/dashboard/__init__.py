"""Dashboard: pages and a JSON API over one broker, as an ASGI application (extra `dashboard`).

    browser ──> server (protection) ──┬──> pages ──┐
    program ──────────────────────────┴──> api ────┴──> snapshots ──> app ──> broker        what is seen
                                           │  └───────> steering ───> app ──> broker        what is done
                                           └──────────> event_source ──> one watch of all events, for every tab

`from stem_iso.dashboard import dashboard; asgi = dashboard(app, token="…")`, or `stem-iso dashboard`.
"""

from __future__ import annotations

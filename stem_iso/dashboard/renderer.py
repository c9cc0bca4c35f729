"""Templates of the pages: the environment, what all templates have at hand, and how one becomes an answer.

    render(context, request, "queues.html", queues=…) ──> page.html around it, or the part that lives alone, for the page's script

Rules
 1. Whatever is put into a template is escaped, and what cannot be seen is written out (`\\x1b`, `\\u202e`): control characters, marks that
    turn text around, half surrogates. No template marks data as safe.
 2. Links begin where the dashboard is mounted; names and ids in them are percent-encoded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from stem_iso.dashboard import drawings, formats, stack_text
from stem_iso.dashboard.paths import mounted_at, route_path
from stem_iso.printable import lines

if TYPE_CHECKING:
    from starlette.requests import Request

    from stem_iso.dashboard.context import DashboardContext

PAGES = (  # path, title, the key that leads there after `g`
    ("/", "Overview", "o"),
    ("/tasks", "Tasks", "t"),
    ("/failures", "Failures", "f"),
    ("/queues", "Queues", "q"),
    ("/workers", "Workers", "w"),
    ("/schedules", "Schedules", "s"),
    ("/limits", "Limits", "l"),
    ("/actions", "Actions", "a"),
)


def visible(value: Any) -> Any:
    """Of each value that a template writes."""
    if isinstance(value, Markup):
        return value
    return lines(value, indent="") if isinstance(value, str) else value


@cache
def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("stem_iso.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "duration": formats.duration,
        "size": formats.size,
        "count": formats.count,
        "rate": formats.rate,
        "pretty": formats.pretty,
        "compact": formats.compact,
        "exact": formats.exact,
        "place": formats.place,
        "frames": stack_text.parsed,
        "json": json.dumps,  # escaped as any text: it stands in attributes
        "segment": segment,
    }
    made.globals |= {"bar": drawings.bar, "share": formats.share, "pages": PAGES}
    return made


def segment(text: str) -> str:
    """A name or an id as a part of a path."""
    return quote(text, safe="", errors="replace")


def query(given: Mapping[str, Any]) -> str:
    """`?state=failed&name=thumbs.%2A`, without what is None or empty."""
    pairs = [(name, value) for name, value in given.items() if value not in (None, "", [])]
    return "?" + urlencode(pairs, doseq=True, errors="replace") if pairs else ""


def _here(request: Request, root: str) -> str:
    """The address that was asked for, as it came: an id may hold `/../`, encoded. Never one of another site, as `//example.com` is."""
    raw = request.scope.get("raw_path")
    path = raw.decode("ascii", "replace") if raw else quote(root + route_path(request.scope), errors="replace")
    asked = request.url.query
    return "/" + path.lstrip("/\\") + (f"?{asked}" if asked else "")


def render(context: DashboardContext, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """With the header `HX-Request` the part alone that changes while one looks at it."""
    root = mounted_at(request.scope)
    page = environment().get_template(template)
    text = page.render(
        frame="part.html" if "hx-request" in request.headers else "page.html",
        root=root,
        here=_here(request, root),
        page=template.removesuffix(".html"),
        broker=context.app.site.shown,
        steers=not context.read_only,
        protected=context.token is not None,
        query=query,
        **values,
    )
    return HTMLResponse(text.encode("utf-8", "replace"), status)

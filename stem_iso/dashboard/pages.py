"""Pages of the dashboard: one route each, from its snapshot to its template.

    GET /queues ──> context.read(snapshots.queues) ──> queues.html ──> the page
                                                                 └──> its part that lives, for the script that asks every other second

Rules
 1. A page only shows. What it does goes to the API, by its script.
 2. What a page raises the server makes an `error_page` of; the script keeps what is on the screen, and says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from stem_iso.brokers.operations import LISTED_STATES
from stem_iso.config import LOG_LEVELS
from stem_iso.dashboard import parameters
from stem_iso.dashboard.charts import charts
from stem_iso.dashboard.drawings import attempt_rows, timeline
from stem_iso.dashboard.renderer import render
from stem_iso.dashboard.shapes import IsolateShown, WorkerView

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Scope

    from stem_iso.dashboard.context import DashboardContext

PAGE_TASKS = 50
PID = parameters.whole_from(1, 2**31 - 1)
STACK_WITHIN = 3.0  # seconds that a worker has to say where a handler is
NEAREST = 8  # running tasks of the overview
BULK_OF = {  # what may be done to many, by the state that is chosen
    "queued": ("revoke",),
    "delayed": ("run-now", "revoke"),
    "running": ("revoke", "terminate"),
    "retried": ("run-now", "revoke"),
    "succeeded": ("delete",),
    "failed": ("retry", "delete"),
    "cancelled": ("retry", "delete"),
}
ANY_BULK = ("retry", "run-now", "revoke", "terminate", "delete")
ERRORS = {
    400: "This page was asked for with something that it does not know",
    403: "Not allowed",
    404: "Not found",
    405: "Not possible here",
    421: "Not at this address",
    503: "The broker does not answer",
}

Page = Callable[["DashboardContext", "Request"], Awaitable[Response]]


class PageFiles(StaticFiles):
    """A browser keeps them, and asks each time whether they are still the same: a newer version is seen at once."""

    def file_response(self, full_path: Any, stat_result: Any, scope: Scope, status_code: int = 200) -> Response:
        answer = super().file_response(full_path, stat_result, scope, status_code)
        answer.headers["cache-control"] = "no-cache"
        return answer


def routes(context: DashboardContext) -> list[BaseRoute]:
    pages: dict[str, Page] = {
        "/": overview,
        "/tasks": tasks,
        "/tasks/{id:path}": task,
        "/failures": failures,
        "/queues": queues,
        "/workers": workers,
        "/workers/{id:path}/stack/{pid}": stack,
        "/schedules": schedules,
        "/limits": limits,
        "/actions": actions,
    }
    found: list[BaseRoute] = [Route(path, partial(page, context)) for path, page in pages.items()]
    return [*found, Mount("/static", PageFiles(directory=Path(__file__).parent / "static"))]


# -- overview --------------------------------------------------------------------------------------------------------------------------


async def overview(context: DashboardContext, request: Request) -> Response:
    seen = await context.read(context.snapshots.overview)
    workers = await context.read(context.snapshots.workers)
    drawn = charts(seen["hour"], seen["day"])
    return render(context, request, "overview.html", seen=seen, charts=drawn, nearest=_nearest(workers))


def _nearest(workers: list[WorkerView]) -> list[tuple[IsolateShown, WorkerView]]:
    """What runs, the nearest to its limit first; then what has none, the longest first."""
    found = [(isolate, worker) for worker in workers if worker["answering"] for isolate in worker["isolates"] if isolate["task_id"]]
    return sorted(found, key=lambda each: _nearness(each[0]), reverse=True)[:NEAREST]


def _nearness(isolate: IsolateShown) -> tuple[float, float]:
    limit, elapsed = isolate["hard_time_limit"] or isolate["soft_time_limit"], isolate["elapsed"] or 0.0
    return (elapsed / limit if limit else 0.0, elapsed)


# -- tasks -----------------------------------------------------------------------------------------------------------------------------


async def tasks(context: DashboardContext, request: Request) -> Response:
    given = parameters.read(request.query_params.multi_items(), parameters.LIST_TASKS)
    limit, newest_first = given.get("limit", PAGE_TASKS), given.get("order", "newest") == "newest"
    which = parameters.task_filter(given)
    found = await context.read(context.snapshots.tasks, which, limit, given.get("cursor"), newest_first)
    asked = _as_asked(request, ("state", "queue", "name", "text", "since", "until"))
    states = given.get("state") or []
    shown: dict[str, Any] = {
        "rows": found["tasks"],
        "cursor": found["cursor"],
        "paged": "cursor" in given,
        "filters": asked,
        "kept": asked | _as_asked(request, ("limit", "order")),
        "states": LISTED_STATES,
        "state": states[0] if len(states) == 1 else "" if not states else ",".join(states),
        "order": "newest" if newest_first else "oldest",
        "bulk": BULK_OF.get(states[0], ANY_BULK) if len(states) == 1 else ANY_BULK,
    }
    known = {"names": [], "queues": []} if "hx-request" in request.headers else await _known(context)
    return render(context, request, "tasks.html", **shown, known=known)


def _as_asked(request: Request, names: tuple[str, ...]) -> dict[str, Any]:
    """As they stood in the query: `since=10m` stays so in the next link."""
    lists = {name: request.query_params.getlist(name) for name in names}
    return {name: ",".join(filter(None, values)) for name, values in lists.items() if any(values)}


async def _known(context: DashboardContext) -> dict[str, list[str]]:
    """Names that a filter is completed with."""
    queues = await context.read(context.snapshots.queues)
    return {"names": sorted(handler.name for handler in context.app.registry), "queues": [queue["name"] for queue in queues]}


async def task(context: DashboardContext, request: Request) -> Response:
    id = str(request.path_params["id"])
    seen = await context.read(context.snapshots.task, parameters.word("id", id))
    attempts = attempt_rows(seen) if seen["attempts"] else []
    return render(context, request, "task.html", task=seen, timeline=timeline(seen, context.app.clock()), attempts=attempts)


async def failures(context: DashboardContext, request: Request) -> Response:
    given = parameters.read(request.query_params.multi_items(), parameters.FAILURES)
    groups = await context.read(context.snapshots.failures, parameters.task_filter(given))
    asked = _as_asked(request, ("queue", "name", "text", "since", "until"))
    known = {"names": [], "queues": []} if "hx-request" in request.headers else await _known(context)
    return render(context, request, "failures.html", groups=groups, filters=asked, known=known)


# -- queues, workers, and the rest -----------------------------------------------------------------------------------------------------


async def queues(context: DashboardContext, request: Request) -> Response:
    found = await context.read(context.snapshots.queues)
    seen = await context.read(context.snapshots.overview)
    spans = {queue["name"]: queue for queue in seen["queues"]}
    return render(context, request, "queues.html", queues=found, spans=spans, paused_tasks=seen["paused_tasks"])


async def workers(context: DashboardContext, request: Request) -> Response:
    found = await context.read(context.snapshots.workers)
    return render(context, request, "workers.html", workers=found, log_levels=list(LOG_LEVELS))


async def stack(context: DashboardContext, request: Request) -> Response:
    """Where the handler in this isolate is now, as its worker says. It changes nothing, so one who may only look sees it too."""
    id = parameters.word("id", str(request.path_params["id"]))
    pid = PID("pid", str(request.path_params["pid"]))
    answers = await context.order(context.app.control, id, "stack", pid, timeout=STACK_WITHIN)
    said = answers.texts.get(id, "")
    why = answers.refused.get(id) or (
        "" if answers else "the worker does not answer" if answers.silent else "there is no such worker any more"
    )
    return render(context, request, "stack.html", id=id, pid=pid, said=said, why=why, at=datetime.now(UTC).isoformat())


async def schedules(context: DashboardContext, request: Request) -> Response:
    return render(context, request, "schedules.html", schedules=await context.read(context.snapshots.schedules))


async def limits(context: DashboardContext, request: Request) -> Response:
    return render(context, request, "limits.html", limits=await context.read(context.snapshots.limits))


async def actions(context: DashboardContext, request: Request) -> Response:
    given = parameters.read(request.query_params.multi_items(), parameters.LIST_ACTIONS)
    limit = given.get("limit", 100)
    return render(context, request, "actions.html", actions=await context.read(context.snapshots.actions, limit), limit=limit)


# -- pages of the server ---------------------------------------------------------------------------------------------------------------


def login_page(context: DashboardContext, request: Request, wrong: bool = False) -> Response:
    """The form; `wrong` where a token was refused. It posts `token` and `next`."""
    asked: Mapping[str, Any] = request.query_params
    return render(context, request, "login.html", 401 if wrong else 200, wrong=wrong, next=str(asked.get("next", "/")))


def error_page(context: DashboardContext, request: Request, status: int, message: str) -> Response:
    title = ERRORS.get(status, "Something went wrong")
    return render(context, request, "error.html", status, title=title, message=message, code=status)

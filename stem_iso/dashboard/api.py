"""JSON API: the table of routes, from which requests are answered and the OpenAPI document is made.

    Route(method, path, parameters, call) ── read the parameters ──> call(api, …) in a thread ──> JSON

Rules
 1. A route is one row: what it takes is checked by `parameters`, what it shows is of `shapes`. Nothing else answers under `/api/`.
 2. What changes anything is a POST. Ids and names in a path may hold any character, a slash too.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from stem_iso.client.bulk import BulkResult
from stem_iso.dashboard import parameters
from stem_iso.dashboard.answers import JsonAnswer
from stem_iso.dashboard.context import DashboardContext
from stem_iso.dashboard.orders import Interrupted, Orders
from stem_iso.dashboard.parameters import Parameter, task_filter
from stem_iso.errors import PayloadTooLarge
from stem_iso.validation import queue as queue_name

LEAST_BODY = 1 << 20  # bytes of a body that are always read
Given = dict[str, Any]


class Api:
    """Answers of one dashboard. A method takes the request, which only says who asks, and what was given."""

    def __init__(self, context: DashboardContext) -> None:
        self.context = context
        self.orders = Orders(context.app, context.snapshots)

    # -- what is seen ----------------------------------------------------------------------------------------------------------------

    async def overview(self, request: Request, given: Given) -> Any:
        return await self.context.read(self.context.snapshots.overview)

    async def stats(self, request: Request, given: Given) -> Any:
        return await self.context.read(self.context.snapshots.stats, given.get("name"), given.get("queue"), given.get("minutes", 60))

    async def tasks(self, request: Request, given: Given) -> Any:
        limit, cursor, newest = given.get("limit", 100), given.get("cursor"), given.get("order") != "oldest"
        return await self.context.read(self.context.snapshots.tasks, task_filter(given), limit, cursor, newest)

    async def task(self, request: Request, given: Given) -> Any:
        return await self.context.read(self.context.snapshots.task, given["id"])

    async def failures(self, request: Request, given: Given) -> Any:
        return await self.context.read(self.context.snapshots.failures, task_filter(given))

    async def queues(self, request: Request, given: Given) -> Any:
        return await self.context.read(self.context.snapshots.queues)

    async def workers(self, request: Request, given: Given) -> Any:
        return await self.context.read(self.context.snapshots.workers)

    async def schedules(self, request: Request, given: Given) -> Any:
        return await self.context.read(self.context.snapshots.schedules)

    async def limits(self, request: Request, given: Given) -> Any:
        return await self.context.read(self.context.snapshots.limits)

    async def actions(self, request: Request, given: Given) -> Any:
        return await self.context.read(self.context.snapshots.actions, given.get("limit", 100))

    async def events(self, request: Request, given: Given) -> Response:
        stream: AsyncGenerator[bytes, None] = self.context.events.stream(given.get("task"))
        return StreamingResponse(stream, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    # -- what is done ----------------------------------------------------------------------------------------------------------------

    async def retry(self, request: Request, given: Given) -> Any:
        return await self.context.order(self.orders.retry, given["id"], visitor(request))

    async def revoke(self, request: Request, given: Given) -> Any:
        return await self.context.order(self.orders.revoke, given["id"], visitor(request))

    async def terminate(self, request: Request, given: Given) -> Any:
        return await self.context.order(self.orders.revoke, given["id"], visitor(request), True)

    async def run_now(self, request: Request, given: Given) -> Any:
        return await self.context.order(self.orders.run_now, given["id"], visitor(request))

    async def delete(self, request: Request, given: Given) -> Any:
        return await self.context.order(self.orders.delete, given["id"], visitor(request))

    async def edit(self, request: Request, given: Given) -> Any:
        return await self.context.order(self.orders.edit, given["id"], given["args"], given.get("run"), visitor(request))

    async def bulk(self, request: Request, given: Given) -> Any:
        action, dry_run = given["action"], given.get("dry_run", False)

        def progress(result: BulkResult) -> None:
            if self.context.stopping.is_set():
                raise Interrupted("the dashboard stops; what was done so far is done")
            if not dry_run:
                counts = {"matched": result.matched, "done": result.done, "refused": result.refused}
                self.context.events.publish("bulk", {"action": action, **counts})

        return await self.context.order(
            self.orders.bulk,
            action,
            task_filter(given),
            all=given.get("all", False),
            dry_run=dry_run,
            by=visitor(request),
            progress=progress,
        )

    async def pause_queue(self, request: Request, given: Given) -> Any:
        return await self.context.order(self.orders.pause_queue, queue_name("queue", given["name"]), visitor(request))

    async def resume_queue(self, request: Request, given: Given) -> Any:
        return await self.context.order(self.orders.resume_queue, queue_name("queue", given["name"]), visitor(request))

    async def purge(self, request: Request, given: Given) -> Any:
        return await self.context.order(self.orders.purge, queue_name("queue", given["name"]), visitor(request))

    async def pause_task(self, request: Request, given: Given) -> Any:
        return await self.context.order(self.orders.pause_task, given["name"], visitor(request))

    async def resume_task(self, request: Request, given: Given) -> Any:
        return await self.context.order(self.orders.resume_task, given["name"], visitor(request))

    async def control(self, request: Request, given: Given) -> Any:
        return await self.context.order(self.orders.control, given["id"], given["action"], given.get("value"), visitor(request))

    async def schedule(self, request: Request, given: Given) -> Any:
        action = request.url.path.rpartition("/")[2]
        return await self.context.order(self.orders.schedule, given["name"], action, visitor(request))


def visitor(request: Request) -> str:
    """Who asks, for the list of actions: the user whom the application's authentication has found, else where he comes from."""
    user = request.scope.get("user") or request.scope.get("state", {}).get("user")
    for name in ("username", "display_name", "name"):
        if isinstance(found := getattr(user, name, None), str) and found:
            return _printable(found)
    if isinstance(user, str) and user:
        return _printable(user)
    return f"dashboard@{_printable(request.client.host) if request.client else 'local'}"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:200])


# -- the table -----------------------------------------------------------------------------------------------------------------------------

Answer = Callable[[Api, Request, Given], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """`path` names its parameter as Starlette does, and takes slashes too. `query` and `body`: what may be given."""

    method: str
    path: str
    answer: Answer
    summary: str
    query: Sequence[Parameter] = parameters.NOTHING
    body: Sequence[Parameter] | None = None
    shape: str = "Done"  # of `openapi`

    @property
    def in_path(self) -> str | None:
        _, found, rest = self.path.partition("{")
        return rest.partition(":")[0] if found else None


def _post(path: str, answer: Answer, summary: str, body: Sequence[Parameter] = (), query: Sequence[Parameter] = ()) -> ApiRoute:
    return ApiRoute("POST", path, answer, summary, query, body)


# A longer path stands before the one that it begins with: a name in a path may have slashes.
ROUTES = (
    ApiRoute("GET", "/api/overview", Api.overview, "Throughput, failures and times of the last hour and day", shape="Overview"),
    ApiRoute("GET", "/api/stats", Api.stats, "Counts and times, minute by minute", parameters.STATS, shape="StatsView"),
    ApiRoute("GET", "/api/events", Api.events, "Live events, as server-sent events", parameters.EVENTS, shape="Stream"),
    ApiRoute("GET", "/api/tasks", Api.tasks, "A page of tasks", parameters.LIST_TASKS, shape="TaskRows"),
    _post("/api/tasks/pause", Api.pause_task, "Let nothing new begin of the tasks of a name", query=parameters.TASK_NAME),
    _post("/api/tasks/resume", Api.resume_task, "Let the tasks of a name begin again", query=parameters.TASK_NAME),
    _post("/api/tasks/{id:path}/retry", Api.retry, "Run a failed or cancelled task again"),
    _post("/api/tasks/{id:path}/revoke", Api.revoke, "Cancel a task; what runs comes to its end"),
    _post("/api/tasks/{id:path}/terminate", Api.terminate, "Cancel a task, and kill it where it runs"),
    _post("/api/tasks/{id:path}/run-now", Api.run_now, "Make a delayed task ready"),
    _post("/api/tasks/{id:path}/edit", Api.edit, "Give a task other arguments, and let it run anew", parameters.EDIT),
    _post("/api/tasks/{id:path}/delete", Api.delete, "Drop what is kept of a task that has ended"),
    ApiRoute("GET", "/api/tasks/{id:path}", Api.task, "One task, with limits, isolate and canvas", shape="TaskView"),
    _post("/api/bulk", Api.bulk, "One action on all tasks that match", parameters.BULK),
    ApiRoute(
        "GET", "/api/failures", Api.failures, "The newest failures, grouped by error and place", parameters.FAILURES, shape="[FailureGroup]"
    ),
    ApiRoute("GET", "/api/queues", Api.queues, "All queues", shape="[QueueView]"),
    _post("/api/queues/{name:path}/pause", Api.pause_queue, "Let nothing new begin of a queue"),
    _post("/api/queues/{name:path}/resume", Api.resume_queue, "Let a queue go on"),
    _post("/api/queues/{name:path}/purge", Api.purge, "Cancel all that waits in a queue"),
    ApiRoute("GET", "/api/workers", Api.workers, "All workers, with their isolates", shape="[WorkerView]"),
    _post("/api/workers/{id:path}/control", Api.control, "Order a worker, or all by *", parameters.CONTROL),
    ApiRoute("GET", "/api/schedules", Api.schedules, "All schedules", shape="[ScheduleView]"),
    _post("/api/schedules/{name:path}/pause", Api.schedule, "Let a schedule fire nothing"),
    _post("/api/schedules/{name:path}/resume", Api.schedule, "Let a schedule go on"),
    _post("/api/schedules/{name:path}/trigger", Api.schedule, "Send what a schedule sends, now"),
    _post("/api/schedules/{name:path}/remove", Api.schedule, "Take a schedule out of the broker"),
    ApiRoute("GET", "/api/limits", Api.limits, "Limits in use, and how many wait for them", shape="[LimitView]"),
    ApiRoute("GET", "/api/actions", Api.actions, "What operators did, newest first", parameters.LIST_ACTIONS, shape="[ActionView]"),
)


def routes(context: DashboardContext) -> list[Route]:
    api = Api(context)
    return [Route(row.path, _endpoint(api, row), methods=[row.method]) for row in ROUTES]


def _endpoint(api: Api, row: ApiRoute) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        given = parameters.read(request.query_params.multi_items(), row.query)
        if (name := row.in_path) is not None:
            given[name] = parameters.word(name, request.path_params[name])
        if row.body is not None:
            given |= parameters.read_body(await body_of(request, longest_body(api.context.app.broker_options.max_payload_bytes)), row.body)
        answer = await row.answer(api, request, given)
        return answer if isinstance(answer, Response) else JsonAnswer(answer)

    return endpoint


def longest_body(payload: int) -> int:
    """JSON takes up to six bytes where the broker stores one."""
    return max(LEAST_BODY, 6 * payload + LEAST_BODY // 16)


async def body_of(request: Request, most: int) -> bytes:
    """All of it. Raises PayloadTooLarge for more than `most` bytes."""
    read, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise PayloadTooLarge(f"body: more than {most} bytes")
            read.append(part)
    except ClientDisconnect:
        return b""
    return b"".join(read)

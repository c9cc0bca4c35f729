"""The endpoints. One `Stem` serves all requests: it is used by any thread and any loop.

In `async def` the methods with an `a` before their name; in `def`, which FastAPI runs in a thread, those without.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from entrypoints.webapp.stream import server_sent_events
from entrypoints.webapp.tasks import stem, write_report
from stem_iso import TaskStatus
from stem_iso.errors import BrokerUnavailable, TaskFailed, UnknownResult


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    stem.close()


log = logging.getLogger("uvicorn.error")
app = FastAPI(title="Reports", lifespan=lifespan)


class Report(BaseModel):
    title: str = Field(min_length=1, max_length=200)
    pages: int = Field(10, ge=1, le=1000)
    seconds_per_page: float = Field(0.1, ge=0, le=10)


class Started(BaseModel):
    id: str


# -- start -----------------------------------------------------------------------------------------------------------------------------


@app.post("/reports", status_code=202)
async def start(report: Report) -> Started:
    handle = await write_report.aenqueue(report.title, report.pages, report.seconds_per_page)
    return Started(id=handle.id)


@app.post("/reports/sync", status_code=202)
def start_in_a_thread(report: Report) -> Started:
    handle = write_report.enqueue(report.title, report.pages, report.seconds_per_page)
    return Started(id=handle.id)


# -- look ------------------------------------------------------------------------------------------------------------------------------


@app.get("/tasks/{id}")
async def status(id: str) -> TaskStatus:
    return await stem.handle(id).astatus()


@app.get("/tasks/{id}/result")
async def result(id: str, timeout: Annotated[float, Query(ge=0, le=60)] = 10) -> Any:
    """Waits for it. Any number of requests that wait share one thread and one connection."""
    return await stem.handle(id).aresult(timeout)


@app.get("/tasks/{id}/events")
async def events(id: str) -> StreamingResponse:
    handle = stem.handle(id)
    with suppress(BrokerUnavailable):  # waited for by the stream: an EventSource does not come again after a 503
        await handle.astatus()  # an unknown id is a 404, not an empty stream
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # no proxy keeps events back
    return StreamingResponse(server_sent_events(handle), media_type="text/event-stream", headers=headers)


# -- cancel ----------------------------------------------------------------------------------------------------------------------------


@app.delete("/tasks/{id}", status_code=202)
async def cancel(id: str) -> TaskStatus:
    """Kills it where it runs. Answers the status of this instant, maybe still `running`: `cancelled` comes when its process is gone."""
    handle = stem.handle(id)
    await handle.arevoke(terminate=True)
    return await handle.astatus()


# -- what goes wrong -------------------------------------------------------------------------------------------------------------------


@app.exception_handler(UnknownResult)
async def unknown(request: Request, error: UnknownResult) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 404)


@app.exception_handler(TaskFailed)  # a cancelled one too
async def failed(request: Request, error: TaskFailed) -> JSONResponse:
    return JSONResponse({"detail": str(error), "status": error.status.as_dict()}, 409)


@app.exception_handler(TimeoutError)
async def not_yet(request: Request, error: TimeoutError) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 504)


@app.exception_handler(BrokerUnavailable)
async def broker_away(request: Request, error: BrokerUnavailable) -> JSONResponse:
    log.warning("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse({"detail": "the queue cannot be reached; try again in a moment"}, 503, {"Retry-After": "1"})

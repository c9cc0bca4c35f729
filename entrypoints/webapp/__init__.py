"""A web service that starts tasks, shows how far they are while they run, and cancels them: FastAPI, and a worker beside it.

    python -m entrypoints.webapp [--port 8000]            or  uvicorn entrypoints.webapp:app
    python -m stem_iso.worker -A entrypoints.webapp.tasks -c 4

    browser ── POST /reports ──> enqueue ──> broker ──> worker ──> isolate
            <─ GET /tasks/ID/events ── SSE: status, progress …, end ──┘

    curl -s localhost:8000/reports -H 'content-type: application/json' -d '{"title": "May", "pages": 20}'
    curl -N localhost:8000/tasks/ID/events

Both open the same broker: STEM_ISO_BROKER, else the file stem_iso.db in the working folder. FastAPI and uvicorn are not among stem_iso's
dependencies: pip install fastapi uvicorn

    tasks     what the worker runs; imports no FastAPI
    service   the endpoints
    stream    a task's events as server-sent events
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """`entrypoints.webapp:app`, for uvicorn. At its first use, since a worker imports this package for its tasks and needs no FastAPI."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from entrypoints.webapp.service import app

    return app

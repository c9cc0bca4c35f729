"""Answers of the server: JSON, and what went wrong as JSON or as a page.

    InvalidOptions 400 · UnknownResult 404 · ActionRefused 409 · PayloadTooLarge 413 · BrokerUnavailable 503

An error is `{"error": {"type", "message", "field"?}}`, with the type as in Python; `field` names the parameter that is wrong. No error has
a traceback: what nobody expected goes to the log.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from stem_iso.dashboard.paths import is_api
from stem_iso.errors import ActionRefused, BrokerUnavailable, InvalidOptions, PayloadTooLarge, StemError
from stem_iso.json_data import to_json

if TYPE_CHECKING:
    from starlette.requests import Request

    from stem_iso.dashboard.context import DashboardContext

FIELD = re.compile(r"([^\s:]{1,100}): ")
DEEPEST = 100  # levels that are shown of what is nested too deeply for JSON
STATUS: tuple[tuple[type[Exception], int], ...] = (
    (PayloadTooLarge, 413),
    (InvalidOptions, 400),
    (LookupError, 404),  # no such id, schedule, worker
    (ActionRefused, 409),
    (BrokerUnavailable, 503),
    (StemError, 409),
)


class JsonAnswer(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """One task with arguments that no JSON can hold must not take the list of all tasks with it."""
        try:
            return to_json(content)
        except RecursionError:
            return to_json(shallow(content))


def shallow(value: Any, levels: int = DEEPEST) -> Any:
    """Maps and lists, with what is nested deeper than so many levels said instead of shown."""
    if not isinstance(value, dict | list):
        return value
    if levels == 0:
        return "(nested too deeply to be shown)"
    if isinstance(value, dict):
        return {key: shallow(each, levels - 1) for key, each in value.items()}
    return [shallow(each, levels - 1) for each in value]


def error_body(kind: str, message: str, field: str | None = None) -> dict[str, Any]:
    error = {"type": kind, "message": message}
    return {"error": error if field is None else {**error, "field": field}}


def status_of_error(error: Exception) -> int:
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def field_of(error: Exception) -> str | None:
    """The name before the colon, in errors of what was given."""
    found = FIELD.match(str(error)) if isinstance(error, InvalidOptions) else None
    return None if found is None else found[1]


def error_answer(context: DashboardContext, request: Request, status: int, kind: str, message: str, field: str | None = None) -> Response:
    if is_api(request.scope) or request.method not in ("GET", "HEAD"):
        answer: Response = JsonAnswer(error_body(kind, message, field), status)
    else:
        answer = context.error_page(context, request, status, message)
    if status == 503:
        answer.headers["retry-after"] = "2"
    return answer

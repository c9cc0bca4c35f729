"""OpenAPI document of the JSON API, made of the table of its routes (`api.ROUTES`) and of the shapes of its answers (`shapes`)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec

from stem_iso import __version__
from stem_iso.dashboard import shapes
from stem_iso.dashboard.api import ROUTES, ApiRoute
from stem_iso.dashboard.parameters import Parameter

SHOWN = (
    shapes.Overview,
    shapes.StatsView,
    shapes.TaskRows,
    shapes.TaskView,
    shapes.FailureGroup,
    shapes.QueueView,
    shapes.WorkerView,
    shapes.ScheduleView,
    shapes.LimitView,
    shapes.ActionView,
)
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}, "field": {"type": "string"}},
        }
    },
}
MEANINGS = {
    400: "a parameter is wrong; `field` names it",
    401: "the token is missing, or is not that",
    403: "the dashboard is read-only, the header X-Stem-Iso is missing, or the application lets this visitor not in",
    404: "there is none of this id or name",
    409: "it was refused, as things stand; the message says why",
    413: "the body, or what it holds, is too large",
    503: "the broker is away; ask again",
}


def document(root: str) -> dict[str, Any]:
    """`root`: where the dashboard is mounted."""
    return {**_document(), "servers": [{"url": root or "/"}]}


@cache
def _document() -> dict[str, Any]:
    _, components = msgspec.json.schema_components(SHOWN, ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for row in ROUTES:
        paths.setdefault(re.sub(r":path", "", row.path), {})[row.method.lower()] = _operation(row)
    return {
        "openapi": "3.1.0",
        "info": {"title": "stem_iso dashboard", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**components, "Done": {"type": "object"}, "Error": ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _operation(row: ApiRoute) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": row.summary,
        "operationId": "_".join(re.findall(r"\w+", f"{row.method.lower()} {row.path.replace(':path', '')}")),
        "parameters": list(_parameters(row)),
        "responses": {"200": {"description": "done" if row.shape == "Done" else "as it stands", "content": _content(row.shape)}},
    }
    for status, meaning in MEANINGS.items():
        operation["responses"][str(status)] = {"description": meaning, "content": _json({"$ref": "#/components/schemas/Error"})}
    if row.body is not None:
        schema = {
            "type": "object",
            "properties": {each.name: _described(each) for each in row.body},
            "required": [each.name for each in row.body if each.required],
            "additionalProperties": False,
        }
        needed = any(each.required for each in row.body)
        operation["requestBody"] = {"required": needed, "content": _json(schema)}
    return operation


def _parameters(row: ApiRoute) -> Iterable[dict[str, Any]]:
    if row.in_path is not None:
        yield {"name": row.in_path, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    for each in row.query:
        yield {"name": each.name, "in": "query", "required": each.required, "description": each.meaning, "schema": dict(each.schema)}
    if row.method == "POST":
        forgery = {"type": "string", "const": "1"}
        yield {"name": "X-Stem-Iso", "in": "header", "required": False, "description": "needed without a bearer token", "schema": forgery}


def _described(parameter: Parameter) -> dict[str, Any]:
    return {**parameter.schema, "description": parameter.meaning} if parameter.meaning else dict(parameter.schema)


def _content(shape: str) -> dict[str, Any]:
    if shape == "Stream":
        return {"text/event-stream": {"schema": {"type": "string"}}}
    one = {"$ref": f"#/components/schemas/{shape.strip('[]')}"}
    return _json({"type": "array", "items": one} if shape.startswith("[") else one)


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}

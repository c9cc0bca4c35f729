"""Paths of requests below the place where the dashboard is mounted, and which of them programs ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Scope

LOGIN, LOGOUT = "/login", "/logout"
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
STATIC = "/static/"


def mounted_at(scope: Scope) -> str:
    """What stands before each path: "" or "/ops"."""
    return str(scope.get("root_path", "")).rstrip("/")


def route_path(scope: Scope) -> str:
    path, root = str(scope["path"]), mounted_at(scope)
    return path.removeprefix(root) if path == root or path.startswith(f"{root}/") else path


def is_api(scope: Scope) -> bool:
    """Whether a program asks, which is answered in JSON."""
    path = route_path(scope)
    return path.startswith("/api/") or path == "/api" or path in PROBES


def is_open(scope: Scope) -> bool:
    """Whether everybody may ask for it."""
    path = route_path(scope)
    return path in PROBES or path == LOGIN or path.startswith(STATIC)

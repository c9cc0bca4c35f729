"""What pages and API have in common: one dashboard's application, its snapshots, and the way to ask them from the loop.

    await context.read(context.snapshots.tasks, which) ──> a thread, one of few ──> the answer | BrokerUnavailable

The server mounts what `pages` has:
    pages.routes(context)                      the routes of all pages and of their files
    pages.login_page(context, request, wrong)  the form, `wrong` where a token was refused; it posts `token` and `next` to `login`
    pages.error_page(context, request, status, message)   for what went wrong on a page: 400, 403, 404, 405, 503
A page needs no checks of its own: the server has asked for the token, and what a page raises (InvalidOptions, UnknownResult,
BrokerUnavailable) becomes an `error_page`.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from stem_iso.dashboard.snapshots import Snapshots

if TYPE_CHECKING:
    from stem_iso.app import Stem

P = ParamSpec("P")
R = TypeVar("R")

AT_ONCE = 4  # calls to the broker; whoever comes later waits for its turn


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="stem_iso: dashboard")


@dataclass(eq=False)
class DashboardContext:
    """`token`: None where none is asked for. `protected`: whether anybody has to log in."""

    app: Stem
    read_only: bool = False
    token: str | None = None
    auth: Callable[[Any], Any] | None = None
    snapshots: Snapshots = field(init=False)
    threads: ThreadPoolExecutor = field(default_factory=_threads)  # its threads begin with the first call

    def __post_init__(self) -> None:
        self.snapshots = Snapshots(self.app)

    @property
    def protected(self) -> bool:
        return self.token is not None

    async def read(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`call(...)` in a thread. What it raises is raised here; a request that is cancelled leaves the thread to its end."""
        context = contextvars.copy_context()
        bound = functools.partial(context.run, call, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.threads, bound)

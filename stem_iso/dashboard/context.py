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
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from stem_iso.dashboard.snapshots import Snapshots

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from stem_iso.app import Stem
    from stem_iso.dashboard.event_source import EventSource

    ErrorPage = Callable[["DashboardContext", Request, int, str], Response]

P = ParamSpec("P")
R = TypeVar("R")

AT_ONCE = 4  # reads of the broker; whoever comes later waits for his turn
PROBES_AT_ONCE = 2  # open to all: whoever asks for them without end waits for himself alone
VISITORS_AT_ONCE = 4  # whom the application's own callable looks at, whatever the broker does meanwhile
ORDERS_AT_ONCE = 4  # what is done: an order to workers waits for them for seconds, a bulk action takes minutes


def _pool(size: int, name: str) -> Callable[[], ThreadPoolExecutor]:
    return lambda: ThreadPoolExecutor(size, thread_name_prefix=f"stem_iso: dashboard {name}")


@dataclass(eq=False)
class DashboardContext:
    """`token`: None where none is asked for. `auth(request)` says whether a visitor may come in."""

    app: Stem
    events: EventSource
    error_page: ErrorPage
    read_only: bool = False
    token: str | None = None
    auth: Callable[[Any], Any] | None = None
    snapshots: Snapshots = field(init=False)
    stopping: threading.Event = field(default_factory=threading.Event)  # set once: what is long ends
    # Their threads begin with the first call.
    _reads: ThreadPoolExecutor = field(default_factory=_pool(AT_ONCE, "read"))
    _probes: ThreadPoolExecutor = field(default_factory=_pool(PROBES_AT_ONCE, "probe"))
    _visitors: ThreadPoolExecutor = field(default_factory=_pool(VISITORS_AT_ONCE, "visitor"))
    _orders: ThreadPoolExecutor = field(default_factory=_pool(ORDERS_AT_ONCE, "order"))

    def __post_init__(self) -> None:
        self.snapshots = Snapshots(self.app)

    @property
    def protected(self) -> bool:
        """Whether there are sessions, which one may end."""
        return self.token is not None

    async def read(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`call(...)` in a thread. What it raises is raised here; a request that is cancelled leaves the thread to its end."""
        return await _in(self._reads, functools.partial(call, *args, **kwargs))

    async def probe(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """As `read`, for what everybody may ask for."""
        return await _in(self._probes, functools.partial(call, *args, **kwargs))

    async def ask_auth(self, request: Request) -> Any:
        """What a callable says that is no coroutine function. Raises what it raises."""
        assert self.auth is not None
        return await _in(self._visitors, functools.partial(self.auth, request))

    async def order(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """As `read`, for what may take long, and changes something."""
        try:
            return await _in(self._orders, functools.partial(call, *args, **kwargs))
        finally:
            self.snapshots.forget()

    def stop(self) -> None:
        """End what is in the background; calls that run come to their ends."""
        self.stopping.set()
        self.events.stop()
        self.snapshots.counts.stop()
        for pool in (self._reads, self._probes, self._visitors, self._orders):
            pool.shutdown(wait=False, cancel_futures=True)


async def _in(pool: ThreadPoolExecutor, call: Callable[[], R]) -> R:
    return await asyncio.get_running_loop().run_in_executor(pool, contextvars.copy_context().run, call)

"""The host of inline handlers by command: a process of their own, shared by their calls. The queue's half of it.

    core: HostedJob ── CALL ──> isolate.child.shared_host ── begin ──> TaskHost: Inline, threads and the loop, as in an embedded worker
    core: Caller.*  <── frames ── HostCaller <─────────────────────────────────────┘

Rules
 1. A handler sees here what it sees in an embedded worker, and also what an isolate gives: its application is imported, the hooks of
    `on_isolate_start` run once before the first call, and its output is in the worker's log under its task.
 2. The core renews the lease, so nobody here watches the interpreter lock: a call that holds it holds up its neighbours, and no lease.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import msgspec

from stem_iso.isolate.engine.endings import of_reply
from stem_iso.isolate.interfaces import Caller, HostCaller, Limits
from stem_iso.outcome import StopReason, TimedOut
from stem_iso.task.handler import Entrypoint
from stem_iso.worker.child.task_runner import TaskRunner, settle_in
from stem_iso.worker.entrypoints import BootPayload, Definition
from stem_iso.worker.inline.call import InlineCall, InlineJob
from stem_iso.worker.inline.runner import Around, Inline


def boot(payload: bytes) -> TaskHost:
    """Raises what user code raises."""
    host = TaskHost(settle_in(payload))
    host.start()
    return host


class HostAround(Around):
    """The caller knows which call a thread or a task runs, and reports limits to the core."""

    def __init__(self, main: str) -> None:
        self.main = main

    def running(self, caller: Caller) -> AbstractContextManager[None]:
        return cast(HostCaller, caller).running()

    def ending(self, caller: Caller, ending: TimedOut) -> None:
        cast(HostCaller, caller).ending(ending)

    def trouble(self, text: str, traceback: str) -> None:
        logging.getLogger("stem_iso.worker").error("%s", f"{text}\n{traceback}".strip())


class TaskHost(TaskRunner):
    """`isolate.interfaces.HostRunner` for tasks."""

    def __init__(self, boot_payload: BootPayload) -> None:
        super().__init__(boot_payload)
        self._inline = Inline(
            loop=None,
            max_result_bytes=boot_payload.max_result_bytes,
            max_payload_bytes=boot_payload.max_payload_bytes,
            around=HostAround(boot_payload.main),
        )

    def define(self, definition: bytes) -> object:
        return super().define(definition), msgspec.msgpack.decode(definition, type=Definition).coroutine

    def begin(self, entry: object, payload: bytes, limits: Limits, sent_at: float, caller: HostCaller) -> InlineCall | None:
        what, coroutine = cast(tuple[Any, bool], entry)
        if not isinstance(what, Entrypoint):
            caller.ended(of_reply(*what))
            return None
        return self._inline.submit(InlineJob(what, coroutine, payload, limits, begun_at=sent_at), caller)

    def stop(self, running: Any, reason: StopReason) -> None:
        self._inline.stop(running, reason)

    def ping(self, pong: Callable[[], None]) -> None:
        self._inline.ping(pong)

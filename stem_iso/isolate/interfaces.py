"""Interfaces of the isolation runtime: jobs, the callbacks of their submitter, and the code that runs inside an isolate.

    submitter ── Job ──> engine ── CALL ──> isolate (child.main) ── Runner.run ──> reply
        ^                  │
        └── Caller.* <─────┘   on_message · limit_reached · output · ended(Outcome), ended exactly once

The runtime carries bytes. What a payload means is known to two parties alone: the submitter, and the `Runner` that the isolate's
`Boot.target` returns, which is the submitter's code on the other side.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from stem_iso.isolate.limits import NO_LIMITS as NO_LIMITS
from stem_iso.isolate.limits import Limits as Limits
from stem_iso.outcome import Outcome, Overrun, StopReason, TimedOut


@dataclass(frozen=True, slots=True)
class Boot:
    """How an isolate starts. `target` is "module:function", called in the isolate as `function(payload, port) -> Runner`.

    `secrets` are names of environment variables that no isolate is given. `hosts`: the process runs many calls at a time (the inline host);
    its target is called as `function(payload) -> HostRunner`. `log_level` is its root logger's: what nobody here would show is not sent.
    `worker_log`: each record comes here, also where the application has handlers of its own there (`log_record.attach`).
    """

    target: str
    payload: bytes = b""
    secrets: tuple[str, ...] = ()
    time_limit: float = 60.0
    hosts: bool = False
    largest_frame: int = 1 << 31  # bytes that it may send at once: a frame that claims more is garbage
    log_level: int = 30  # logging.WARNING, as everywhere in Python
    worker_log: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class EntrypointRef:
    """An entrypoint. It travels once per isolate and is a number afterwards.

    `definition(ready)` makes the bytes for `Runner.define`, where `ready` is what that isolate's runner said of itself when it was ready.
    An exception it raises fails the call (`Failed`) and nothing else.
    """

    number: int
    definition: Callable[[bytes], bytes]


class Job(msgspec.Struct, frozen=True, eq=False):
    """One call. Of waiting jobs the one of the highest `priority` starts first, then the one that came first. `title` names the process.

    `descriptor` goes with the payload (a memfd with what is too large for a pipe); it stays the submitter's, open until `Caller.ended`.
    """

    entry: EntrypointRef
    payload: bytes
    title: str = ""
    limits: Limits = NO_LIMITS
    priority: int = 0
    descriptor: int | None = None


class HostedJob(Job, frozen=True, eq=False):
    """One call for the inline host. `coroutine`: it can be cancelled, and so have a hard limit; a thread cannot."""

    coroutine: bool = False


class LimitNotice(Overrun, frozen=True, kw_only=True):
    """A limit was reached. `level`: "soft" or "hard"; `title`: which call, as its job says."""

    level: str
    title: str = ""

    @classmethod
    def of(cls, ending: TimedOut, title: str = "") -> LimitNotice:
        """Of the limit that ended a call."""
        return cls(level="hard", title=title, **ending.facts())


@dataclass(frozen=True, slots=True)
class IsolateNotice:
    """The life of an isolate. Fields as in `stem_iso.events.IsolateEvent`."""

    action: str
    pid: int
    reason: str | None = None
    traceback: str = ""
    title: str = ""


Answer = Callable[[bytes], None]


class Caller(Protocol):
    """Who submitted a call. All methods are called on the engine's thread (`sent` also on the submitter's) and must not block."""

    def sent(self) -> None:
        """The call is on its way to an isolate: its clock runs. Once more if it is given to another isolate."""

    def on_message(self, payload: bytes, answer: Answer | None) -> None:
        """The handler used its context. `answer` (any thread may call it, once) is given where the handler waits for one."""

    def beat(self) -> None:
        """The handler called `heartbeat()`."""

    def limit_reached(self, notice: LimitNotice) -> None:
        """Soft: at most once per call. Hard: once, just before `ended`."""

    def output(self, level: int, logger: str, text: str, details: bytes = b"") -> None:
        """What the handler printed (logger "stdout" or "stderr", level INFO; one or several lines, without the last newline) or logged.

        `details`: what a record carries beside that (`log_record.unpacked`).
        """

    def received(self, descriptor: int) -> None:
        """A descriptor came with the reply; it is the caller's from now on, to close. At most once, just before `ended`."""

    def ended(self, outcome: Outcome) -> None:
        """Exactly once, after the isolate's exit was confirmed where it was killed, and after the death of all descendants."""


# -- the other side, inside the isolate (and, for inline handlers, in the worker) ------------------------------------------------------


class CorePort(Protocol):
    """What a running call can send to the core. Usable from any thread of the handler."""

    soft_deadline: float | None  # monotonic seconds
    hard_deadline: float | None
    isolated: bool
    cpus: frozenset[int] | None  # the cores that are the call's own

    def request(self, payload: bytes) -> bytes:
        """Send it to the submitter and wait for the answer."""

    def send(self, payload: bytes) -> None:
        """Send it to the submitter; there is no answer."""

    def beat(self) -> None:
        """Prove that the handler is alive."""

    def armed(self) -> AbstractContextManager[None]:
        """Entered around the handler alone: inside, `SoftTimeLimitExceeded` may be raised, once, where the job asks for it."""


class IsolatePort(CorePort, Protocol):
    """In an isolate descriptors travel beside the bytes."""

    descriptor: int | None  # what came with the payload; closed at the call's end

    def attach(self, descriptor: int) -> None:
        """Send it with the reply; the port's from now on."""


# What a reply's first byte says; the engine turns it into an Outcome without knowing what the payload means.
SUCCEEDED, FAILED, RETRY, REJECTED = 0, 1, 2, 3
TIMED_OUT, STOPPED = 4, 5  # a host says these of a call that it ended by itself


class Runner(Protocol):
    """The submitter's code inside the isolate."""

    ready: bytes  # sent to the core once; `EntrypointRef.definition` may read it

    def define(self, definition: bytes) -> object:
        """The entrypoint of these bytes; kept by the isolate under the entrypoint's number."""

    def run(self, entry: object, payload: bytes, port: IsolatePort) -> tuple[int, bytes]:
        """Run the call on this (the main) thread. Returns (SUCCEEDED, result bytes), (FAILED, msgpack of `outcome.Failed`'s fields
        [TaskError, kinds]), (RETRY, msgpack of `RetryAsked`'s fields in order) or (REJECTED, msgpack [reason, message]).

        Never raises: what the handler raises, `SystemExit` and `SoftTimeLimitExceeded` included, is a FAILED reply.
        """


# -- the other side, inside the inline host --------------------------------------------------------------------------------------------


class HostCaller(Caller, Protocol):
    """Receiver of what a hosted call does, on the host's side of the pipe. Usable from any thread."""

    def running(self) -> AbstractContextManager[None]:
        """Entered around all of the call, by the thread that runs it, or in its task: what is printed inside is the call's."""

    def ending(self, ending: TimedOut) -> None:
        """The hard limit, or that of silence, has passed, and the coroutine is being cancelled."""


class HostRunner(Protocol):
    """The submitter's code inside the inline host. Called on the thread that reads the pipe: nothing here may wait for a handler."""

    ready: bytes

    def define(self, definition: bytes) -> object:
        """As `Runner.define`."""

    def begin(self, entry: object, payload: bytes, limits: Limits, sent_at: float, caller: HostCaller) -> object:
        """Start the call, whose clock began at `sent_at`; `caller.ended` is called exactly once. Returns what `stop` knows it by."""

    def stop(self, running: Any, reason: StopReason) -> None:
        """Cancel it, if it is a coroutine; it ends as Stopped, or as what it says in its last steps."""

    def ping(self, pong: Callable[[], None]) -> None:
        """Call `pong` on the loop that runs the coroutines, or here, if there is none."""

"""The isolate's program with many seats: the inline host.

    main thread          reads the pipe: CALL ──> started = n · begin      ANSWER ──> the question      STOP ──> cancel      PING
    threads, the loop    run handlers, and write: BEGUN · PRINT · LOG · REQUEST · SEND · BEAT · LIMIT · REPLY, each with its call's number

Rules
 1. The main thread never waits for a handler: a question of one call is answered while another's handler blocks. (It does wait for the
    interpreter lock, and for the import that an entrypoint asks for whose application cannot be imported as a whole.)
 2. `started` in the page is the highest number whose frame was whole, stored before a byte of it is decoded. Numbers only grow and frames
    come in order, so that one word says of every call whether it had started, at whatever instant the process dies: a frame of its own
    might be half written then, and a word per call would be a second memory to keep.
 3. One frame at a time is written, under a lock, which is reentrant because a finalizer may print in the midst of it.
 4. A call has one question on its way; others of its threads wait for their turn here.
 5. A call that has a limit says on which thread it runs before its handler's first step: where C code keeps the interpreter lock, this
    process's own clock stands still, and the core asks that thread for its stack by a signal. It says so in the page; in a frame where
    another call that runs has its slot there.
 6. A call that the core takes back, because this thread did not come to it, is not begun (`shared_row`).
 7. What a call leaves running (a thread, a task, a subprocess) goes on after its end, and ends with the process: nobody can know whose
    it is. Its words are nobody's. What has died of it is reaped when no call runs.
 8. What calls changed in the process (`state`) is put back when the last of them ends, and its log says so; where it cannot be put back the
    reply says that too, and the core sends no more calls here.
"""

from __future__ import annotations

import ctypes
import logging
import os
import socket
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import lru_cache
from importlib import import_module
from math import inf

import msgspec

from stem_iso.isolate.child.entry import as_in_any_program
from stem_iso.isolate.child.fork import ForkedChildGuard
from stem_iso.isolate.child.leftovers import NOTHING, STATE, Leftovers
from stem_iso.isolate.child.output_routing import current, route
from stem_iso.isolate.child.port import Pipe
from stem_iso.isolate.child.state import Change, ProcessState, of_host
from stem_iso.isolate.interfaces import (
    FAILED,
    NO_LIMITS,
    REJECTED,
    RETRY,
    STOPPED,
    SUCCEEDED,
    TIMED_OUT,
    Answer,
    Boot,
    HostRunner,
    LimitNotice,
    Limits,
)
from stem_iso.isolate.interpreter import Program
from stem_iso.isolate.log_record import Attachment
from stem_iso.isolate.shared_row import Page
from stem_iso.isolate.wire import (
    ANSWER,
    BEAT,
    BEGUN,
    BROKEN,
    CALL,
    HARD_LIMIT,
    LIMIT,
    LIMIT_HEAD,
    LOG,
    PING,
    PONG,
    PRINT,
    READY,
    REPLY,
    REQUEST,
    SEND,
    SILENCE,
    SOFT_LIMIT,
    STOP,
    THREAD,
    UNBEGUN,
    CallFrame,
    Frame,
    frame,
    pack_log,
    unpack_hosted,
)
from stem_iso.outcome import Failed, Outcome, Overrun, Rejected, RetryAsked, Stopped, StopReason, Succeeded, TaskError, TimedOut
from stem_iso.text import cut, cut_inside, encoded

TITLE = "stem_iso: inline host"
PIECE = 1 << 16  # of a text that is printed at once: no frame is larger
AT_ONCE = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
LONGEST = 1 << 13  # a line without an end is sent in pieces of this size

_encode = msgspec.msgpack.Encoder().encode


def serve(boot: Boot, program: Program, pipe: Pipe, page: Page, set_title: Callable[[str], None]) -> None:
    """Raises CoreExited at the end of the pipe."""
    writer = HostWriter(pipe)
    fallback = RunningCall(writer, 0, Running(None, page), lambda: None)
    log = Attachment(route(fallback, boot.log_level))
    set_title("stem_iso: inline host, booting")
    runner = _runner(boot, program, writer)
    log.attach()
    host = HostProgram(runner, writer, page, log)
    set_title(TITLE)
    writer.write(READY, 0, host.runner.ready)
    while (received := pipe.receive_or_end()) is not None:
        host.on_frame(received)


def _runner(boot: Boot, program: Program, writer: HostWriter) -> HostRunner:
    module, _, name = boot.target.partition(":")
    try:
        start: Callable[[bytes], HostRunner] = getattr(import_module(module), name)
        as_in_any_program(program)
        with ForkedChildGuard():
            return start(boot.payload)
    except BaseException:  # user code: its import or its start hook may raise anything, SystemExit included
        writer.write(BROKEN, 0, encoded(cut_inside(traceback.format_exc())))
        os._exit(1)


class HostWriter:
    """The way to the core, for all threads. A process that a handler forked has none."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe, self._fd = pipe, pipe.fileno()
        self._lock: AbstractContextManager[bool] = threading.RLock()
        # PyDLL keeps the interpreter lock for the few microseconds that the kernel needs. Given away, it would come back after another
        # thread's turn, so that each frame cost two changes of threads.
        self._direct: Callable[[int, bytes, int, int], int] = ctypes.PyDLL(None).send
        self.forked = False
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.forked = True

    def locked(self) -> AbstractContextManager[bool]:
        """The lock. Raises RuntimeError in a forked process, where it may be held for ever by a thread that is not there."""
        if self.forked:
            raise RuntimeError("the task's context belongs to its process: one that the handler forked cannot use it")
        return self._lock

    def write(self, kind: int, number: int, payload: bytes = b"") -> None:
        self.send(frame(kind, number, payload))

    def send(self, frames: bytes) -> None:
        with self.locked():
            sent = max(0, self._direct(self._fd, frames, len(frames), AT_ONCE))
            if sent < len(frames):  # the pipe is full, which is waited for without that lock; or the core is gone
                self._pipe.send_all(frames[sent:])


class HostProgram:
    """Used by the main thread."""

    def __init__(self, runner: HostRunner, writer: HostWriter, page: Page, log: Attachment) -> None:
        self.runner, self._writer, self._page, self._log = runner, writer, page, log
        self._entries: dict[int, object] = {}
        self._running, self._leftovers = Running(of_host(), page), Leftovers()

    def on_frame(self, received: Frame) -> None:
        kind, number, payload = received
        if kind == CALL:
            if not self._page.may_begin(number):
                self._writer.write(UNBEGUN, number)
                return
            if not self._running.calls:
                self._leftovers.reap()
            self._begin(number, payload)
        elif kind == PING:
            self.runner.ping(lambda: self._writer.write(PONG, number))
        elif (call := self._running.calls.get(number)) is None:
            return  # it has ended meanwhile
        elif kind == ANSWER:
            call.answered(payload)
        elif kind == STOP:
            self.runner.stop(call.running_as, StopReason(payload.decode()))

    def _begin(self, number: int, payload: bytes) -> None:
        sent_at, heartbeat, call_frame = unpack_hosted(payload)
        if call_frame.definition:
            self._define(call_frame)
        call = RunningCall(self._writer, number, self._running, self._log.renew)
        with self._writer.locked():
            self._running.calls[number] = call
        try:
            limits = limits_of(call_frame, sent_at, heartbeat)
            call.limited = limits is not NO_LIMITS
            call.running_as = self.runner.begin(self._entries[call_frame.entry], call_frame.payload, limits, sent_at, call)
        except Exception as error:  # no thread, too short a limit; and what the user's event loop raises, which a call has to bear alone
            kinds = tuple(cut(f"{cls.__module__}.{cls.__qualname__}") for cls in type(error).__mro__)
            trace = cut_inside(traceback.format_exc())
            call.ended(Failed(TaskError(type=kinds[0], message=cut(str(error)), traceback=trace), kinds))

    def _define(self, call_frame: CallFrame) -> None:
        with ForkedChildGuard():
            self._entries[call_frame.entry] = self.runner.define(call_frame.definition)
        self._log.attach()  # the import may have configured logging
        with self._writer.locked():
            self._running.defined()


class Running:
    """The calls that run, and what they may change together. Under the writer's lock, whoever uses it."""

    def __init__(self, state: ProcessState | None, page: Page) -> None:
        self.calls: dict[int, RunningCall] = {}
        self._state, self._page = state, page

    def runs_here(self, number: int) -> bool:
        """The core can see in which thread this call runs, which is this one. False: another that runs has its slot in the page."""
        if self._page.in_slot_of(number) in self.calls:
            return False
        self._page.set_thread(number, threading.get_native_id())
        return True

    def defined(self) -> None:
        """What importing the user's module changed stays, where it can be distinguished from what calls do."""
        if self._state is not None and not self.calls:
            self._state.take()

    def remove(self, number: int) -> Change:
        """What had been changed, if this was the last one."""
        self.calls.pop(number, None)
        return Change() if self.calls or self._state is None else self._state.restore()


def limits_of(call_frame: CallFrame, sent_at: float, heartbeat: float) -> Limits:
    if call_frame.soft_deadline == call_frame.hard_deadline == heartbeat == inf:
        return NO_LIMITS
    # To a microsecond: the difference of two times is not quite what was added, and would be another limit for each call.
    soft, hard = round(call_frame.soft_deadline - sent_at, 6), round(call_frame.hard_deadline - sent_at, 6)
    return _limits(call_frame.raises, soft, hard, heartbeat)


@lru_cache(256)
def _limits(raises: bool, *times: float) -> Limits:
    soft, hard, heartbeat = (None if each == inf else each for each in times)
    return Limits(soft, hard, heartbeat, raises)


class RunningCall:
    """A call that runs here, as the runner's `HostCaller`, and the writer of its frames. Number 0 stands for the process."""

    def __init__(self, writer: HostWriter, number: int, running: Running, renew_log: Callable[[], None]) -> None:
        self._writer, self._number, self._running, self._renew_log = writer, number, running, renew_log
        self.limited = False
        self.running_as: object = None
        # The rest is under the writer's lock.
        self._open = True
        self._requests: deque[tuple[bytes, Answer]] = deque()  # the first of them is on its way
        self._lines = {1: b"", 2: b""}  # what has no end of line yet

    # -- HostCaller ----------------------------------------------------------------------------------------------------------------

    def running(self) -> AbstractContextManager[None]:
        return Current(self)

    def begins(self) -> None:
        """On the thread that runs it, before its first step."""
        if self.limited:
            with self._writer.locked():
                if not self._running.runs_here(self._number):
                    self._write(BEGUN, THREAD.pack(threading.get_native_id()))

    def ending(self, ending: TimedOut) -> None:
        self._limit(SILENCE if ending.silent else HARD_LIMIT, ending)

    def sent(self) -> None:
        """The core knows."""

    def on_message(self, payload: bytes, answer: Answer | None) -> None:
        if answer is None:
            self._write(SEND, payload)
            return
        with self._writer.locked():
            self._requests.append((payload, answer))
            if len(self._requests) == 1:
                self._write(REQUEST, payload)

    def received(self, descriptor: int) -> None:
        """Nothing in a host is sent one."""
        os.close(descriptor)

    def beat(self) -> None:
        self._write(BEAT)

    def limit_reached(self, notice: LimitNotice) -> None:
        if notice.level == "soft":  # the hard one is in the reply
            self._limit(SOFT_LIMIT, notice)

    def _limit(self, level: int, reached: Overrun) -> None:
        self._write(LIMIT, LIMIT_HEAD.pack(level, reached.elapsed) + reached.stack.encode(errors="replace"))

    def output(self, level: int, logger: str, text: str, details: bytes = b"") -> None:
        self.logged(level, logger, text, details)

    def ended(self, outcome: Outcome) -> None:
        tag, result = pack_reply(outcome)
        self._renew_log()  # without the lock: `logging` has one of its own, and whoever holds that may be about to write
        with self._writer.locked():
            rest = [frame(PRINT, self._number, bytes((stream,)) + text) for stream, text in self._lines.items() if text]
            self._open = False
            change = self._running.remove(self._number)
            rest += [frame(LOG, self._number, pack_log(logging.WARNING, "stem_iso", text)) for text in _reports(change)]
            head = bytes((tag, STATE if change.lost else NOTHING))
            self._writer.send(b"".join((*rest, frame(REPLY, self._number, head + result))))

    # -- the pipe ------------------------------------------------------------------------------------------------------------------

    def answered(self, payload: bytes) -> None:
        with self._writer.locked():
            if not self._requests:
                return
            _, answer = self._requests.popleft()
            if self._requests:
                self._write(REQUEST, self._requests[0][0])
        answer(payload)

    def _write(self, kind: int, payload: bytes = b"") -> None:
        with self._writer.locked():
            if self._open:
                self._writer.write(kind, self._number, payload)

    # -- OutputReceiver ------------------------------------------------------------------------------------------------------------

    def printed(self, stream: int, data: bytes) -> bool:
        if self._writer.forked:
            return False
        with self._writer.locked():
            if not self._open:
                return False
            text = self._lines[stream] + data
            end = text.rfind(b"\n") + 1
            if len(text) - end > LONGEST:
                end = len(text)
            self._lines[stream] = text[end:]
            for at in range(0, end, PIECE):
                self._writer.write(PRINT, self._number, bytes((stream,)) + text[at : min(at + PIECE, end)])
        return True

    def logged(self, level: int, logger: str, text: str, details: bytes) -> bool:
        if self._writer.forked or not self._open:
            return False
        self._write(LOG, pack_log(level, logger, text, details))
        return True


class Current:
    """Around a call: what is printed and logged inside is its own. A class, since a generator's would cost every call a microsecond."""

    __slots__ = ("_call", "_token")

    def __init__(self, call: RunningCall) -> None:
        self._call = call

    def __enter__(self) -> None:
        self._call.begins()
        self._token = current.set(self._call)

    def __exit__(self, *_: object) -> None:
        current.reset(self._token)


# -- replies ---------------------------------------------------------------------------------------------------------------------------


def pack_reply(outcome: Outcome) -> tuple[int, bytes]:
    """Tag and bytes of the reply, which `engine.endings` reads. In a host, limits and stops end a call inside, so they are replies too."""
    match outcome:
        case Succeeded(result):
            return SUCCEEDED, result
        case Failed(error, kinds):
            return FAILED, _encode((error, kinds))
        case RetryAsked(countdown, eta, max_retries):
            return RETRY, _encode((countdown, eta, max_retries))
        case Rejected(reason, message):
            return REJECTED, _encode((reason, message))
        case TimedOut():
            return TIMED_OUT, _encode(outcome)
        case Stopped(reason, started):
            return STOPPED, _encode((reason.value, started))
        case _:
            raise TypeError(f"{type(outcome).__name__} is no ending that a host reports")


def _reports(change: Change) -> Iterator[str]:
    if change.restored:
        yield f"this call, or one beside it, changed its process, and it was put back: {', '.join(change.restored)}"
    if change.lost:
        yield f"this call, or one beside it, changed its process in what cannot be put back: {', '.join(change.lost)}"

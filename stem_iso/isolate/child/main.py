"""The isolate's program: one call at a time, on the main thread.

    set up (setup) ── wait for ADOPT ── boot the runner ── READY ──┐
                                        ┌──────────────────────────┘
                                        └> CALL: started = n · decode · run · finished = n · REPLY ─┐
                                        ^────────────────────────────────────────────────────────────┘

Rules
 1. No user code before ADOPT: from then on a core holds our pidfd, and an isolate that nobody could kill never ran anything.
 2. `started` is stored when the whole frame is here and before a byte of it is decoded; `finished` before the reply is sent.
 3. A reply says what the handler left behind. Threads, processes: the core kills the isolate before it reports the reply to anybody. A
    process changed in a way that cannot be put back (`state`): the reply counts at once, and the isolate is replaced.
 4. A call runs in a copy of the context that start-up left.
 5. A process that user code forked and that comes back ends there (`fork`): nothing here is its own.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

import msgspec

from stem_iso.isolate.child import setup
from stem_iso.isolate.child.cpu_pinning import Pinning
from stem_iso.isolate.child.entry import StartMethod, as_in_any_program
from stem_iso.isolate.child.fork import ForkedChildGuard, flush, flush_before_forks
from stem_iso.isolate.child.leftovers import RETIRED, STATE, Leftovers
from stem_iso.isolate.child.port import CallPort, CoreExited, Pipe
from stem_iso.isolate.child.registration import register_with
from stem_iso.isolate.child.state import IsolateState, fresh_context
from stem_iso.isolate.interfaces import Boot, Runner
from stem_iso.isolate.interpreter import Program
from stem_iso.isolate.log_record import Attachment, LogForwarder, packed
from stem_iso.isolate.shared_row import Page
from stem_iso.isolate.wire import BROKEN, CALL, READY, CallFrame, Frame, unpack_call
from stem_iso.text import cut_inside, encoded

IDLE_TITLE = "stem_iso: idle"


def main(fds: tuple[int, ...], program: Program) -> None:
    """The target of the LokyProcess. Returns where the pipe ends while it is idle, and so leaves as any program does, exit hooks and all;
    whoever ended the pipe bounds the time for that."""
    import socket

    page_fd, link_fd, stack, stdout, stderr, lifeline, tracker = fds
    setup.own_session()
    setup.quiet_signals()
    setup.first_to_go()
    setup.lifeline(lifeline)
    setup.own_descriptors(stdout, stderr)
    dump_stack = setup.dump_stacks_to(stack)
    flush_before_forks()
    page = Page(page_fd)
    setup.forget(page_fd)
    register_with(tracker)
    pipe = Pipe(socket.socket(fileno=link_fd))
    try:
        serve(pipe, page, dump_stack, program)
    except CoreExited:
        os._exit(0)
    except OSError as error:  # a handler closed our descriptors: the process cannot speak any more, on stderr perhaps neither
        with suppress(OSError):
            os.write(2, f"isolate: {error}\n".encode())
        os._exit(1)


def serve(pipe: Pipe, page: Page, dump_stack: Callable[[], None], program: Program) -> None:
    boot = msgspec.msgpack.decode(pipe.receive().payload, type=Boot)
    if boot.hosts:
        from stem_iso.isolate.child import shared_host

        shared_host.serve(boot, program, pipe, page, titles())
        return
    port = CallPort(pipe, dump_stack)
    handler = PortHandler(port)
    handler.setLevel(boot.log_level)
    logging.basicConfig(level=boot.log_level, handlers=[handler])
    set_title = titles()
    set_title("stem_iso: booting")
    runner = boot_runner(boot, program, pipe, port)
    log = Attachment(handler, beside=boot.worker_log)
    log.attach()
    calls = Calls(runner, port, page, pipe, set_title, log)
    set_title(IDLE_TITLE)
    pipe.send(READY, 0, runner.ready)
    while (received := pipe.receive_or_end()) is not None:
        if received.kind == CALL:
            calls.run(received)


def boot_runner(boot: Boot, program: Program, pipe: Pipe, port: CallPort) -> Runner:
    module, _, name = boot.target.partition(":")
    try:
        start: Callable[[bytes, CallPort], Runner] = getattr(import_module(module), name)
        as_in_any_program(program)  # what we import ourselves has been imported
        with ForkedChildGuard():
            return start(boot.payload, port)
    except BaseException:  # user code: its import or its start hook may raise anything, SystemExit included
        pipe.send(BROKEN, 0, encoded(cut_inside(traceback.format_exc())))
        flush()
        os._exit(1)


class Calls:
    """Runs calls, one after the other."""

    def __init__(self, runner: Runner, port: CallPort, page: Page, pipe: Pipe, set_title: Callable[[str], None], log: Attachment) -> None:
        self._runner, self._port, self._page, self._pipe = runner, port, page, pipe
        self._set_title, self._log = set_title, log
        self._pinning, self._start_method = Pinning(), StartMethod()
        self._state, self._leftovers = IsolateState(), Leftovers()
        self._entries: dict[int, object] = {}

    def run(self, received: Frame) -> None:
        number = received.number
        self._page.started = number
        call = unpack_call(received.payload)
        if call.title:
            self._set_title(call.title)
        self._port.begin(number, call)  # before `define`, which imports the user's module: what that logs belongs to this call
        if call.cpus:
            self._pinning.pin(call.cpus)
        if call.definition:
            self._define(call)
        tag, result = fresh_context().run(self._runner.run, self._entries[call.entry], call.payload, self._port)
        self._page.finished = number
        self._pinning.unpin()
        self._start_method.restore()
        self._log.renew()
        flush()
        self._port.reply(bytes((tag, self._left_behind())) + result)
        if lost := self._state.after_reply().lost:
            with suppress(OSError):  # the reply is out, so the line cannot travel with it
                os.write(2, f"{_not_put_back(lost)}\n".encode())
            os._exit(RETIRED)
        if call.title:
            self._set_title(IDLE_TITLE)

    def _define(self, call: CallFrame) -> None:
        with ForkedChildGuard():
            self._entries[call.entry] = self._runner.define(call.definition)
        self._log.attach()  # the import may have configured logging
        self._pinning.unpin()
        self._state.take()
        self._leftovers.take()
        if call.cpus:
            self._pinning.pin(call.cpus)

    def _left_behind(self) -> int:
        change = self._state.before_reply()
        if change.restored:
            flush()  # the streams of start-up, which it may have replaced
        if change.lost:
            self._port.log(logging.WARNING, "stem_iso", _not_put_back(change.lost))
        return self._leftovers.left_behind() or (STATE if change.lost else 0)


def _not_put_back(names: tuple[str, ...]) -> str:
    return f"the call changed what cannot be put back, and its process is replaced: {', '.join(names)}"


class PortHandler(LogForwarder):
    """`logging` in a handler, over the pipe to the worker's log: with all that a record has, which captured text would lose."""

    def __init__(self, port: CallPort) -> None:
        super().__init__()
        self._port = port

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._port.log(*packed(record))
        except Exception:  # as every handler of logging: the task must not fail because its log cannot be written
            self.handleError(record)


def titles() -> Callable[[str], None]:
    from setproctitle import getproctitle, setproctitle

    current = [getproctitle()]  # the first call reads SPT_NOENV, which what the handler starts must not inherit

    def set_title(title: str) -> None:
        if title != current[0]:
            current[0] = title
            setproctitle(title)

    os.environ.pop("SPT_NOENV", None)
    return set_title

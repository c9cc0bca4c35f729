"""The core process of a worker started by command: imports the application, runs the `Worker`, and leaves with an exit code.

    launcher ── socket, memfd(CoreStart) ──> core ── GOODBYE code ──> launcher exits with it
             ── SIGNAL count ──> Worker.stop()          a core that ends without GOODBYE has died, and is replaced

Exit codes: 0 done · 1 failed · 2 usage or import · 3 the broker cannot be reached.

The core runs no handler: code that may hold the interpreter lock, or crash, has no place beside limits and leases. The core has its own
process group and does nothing on TERM and INT: the launcher alone counts signals. The core never sets SIG_IGN, because programs that the
application starts while it is imported would inherit that.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import msgspec

from stem_iso.client.task_defaults import misspelt_variables
from stem_iso.config import WorkerConfig, overruled_broker
from stem_iso.errors import BrokerUnavailable, InvalidOptions
from stem_iso.isolate.keeper.keeper import set_title
from stem_iso.isolate.keeper.protocol import GOODBYE, SIGNAL, TURNED, send
from stem_iso.isolate.linux import become_subreaper
from stem_iso.printable import lines
from stem_iso.worker.app_import import BrokenModule, application
from stem_iso.worker.launcher import CoreStart
from stem_iso.worker.options import Origin
from stem_iso.worker.reporting.log import configure_logging
from stem_iso.worker.reporting.log_output import LogWriter, adopt, to_stderr
from stem_iso.worker.vitals import StateReporter, Vitals
from stem_iso.worker.worker import Worker

DONE, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3
LAST_WORDS = 3.0  # seconds for what is still to be written: somewhat more than `log_output.GRACE`
SWITCH_INTERVAL = 0.0005  # with Python's 5 ms, a consumer in the midst of a large batch, or a listener, could hold up a kill as long

log = logging.getLogger("stem_iso.worker")


def run_core(start: CoreStart, keeper_socket: socket.socket, outlet: LogWriter) -> int:
    """Work until the end; the exit code. An error at the start goes to stderr, in one line or with the user's own traceback."""
    try:
        worker = _worker(start, keeper_socket, outlet)
        with _metrics_server(start.config, worker.vitals):
            worker.run()
        if start.config.burst and worker.unknown_tasks:
            outlet.error(f"left in the queue, because no task bears the name: {', '.join(map(repr, worker.unknown_tasks))}")
            return FAILED
    except (InvalidOptions, BrokenModule) as error:
        outlet.error(lines(str(error), ""))
        return USAGE
    except BrokerUnavailable as error:
        outlet.error(lines(str(error), ""))
        return UNREACHABLE
    except BaseException:  # user code may raise anything while it is imported; a core that dies of it would be started again
        log.exception("the worker failed")
        return FAILED
    return DONE


def _worker(start: CoreStart, keeper_socket: socket.socket, outlet: LogWriter) -> Worker:
    config = start.config

    def on_keeper(kind: str, fields: list[Any]) -> None:
        if kind == SIGNAL:
            worker.stop(at_once=fields[0] > 1)

    app = application(config)
    overruled = config.overruled + misspelt_variables(os.environ)
    if config.broker is None and app.site.in_code and (said := overruled_broker(app.broker)):
        overruled += (said,)
    adopt(outlet, config.log_level.upper())
    app.site.withhold(config.secret_env)
    if app.site.withheld:  # isolates have this argv
        sys.argv[:] = [argument.replace(app.broker, app.site.public) for argument in sys.argv]
    worker = Worker(
        app,
        queues=config.queues or None,
        concurrency=config.concurrency,
        spares=config.spares,
        shutdown_timeout=config.shutdown_timeout,
        max_tasks_per_isolate=config.max_tasks_per_isolate,
        max_memory_per_isolate=config.max_memory_per_isolate,
        unregistered_grace=config.unregistered_grace,
        burst=config.burst,
        secrets=config.secret_env,
        origin=Origin(
            boot=start.boot,
            predecessors=start.predecessors,
            keeper_socket=keeper_socket,
            on_keeper=on_keeper,
            overruled=overruled,
            vitals=Vitals(_state_reporter(start.report_every, keeper_socket)),
        ),
    )
    return worker


def _state_reporter(every: float | None, keeper_socket: socket.socket) -> StateReporter | None:
    """To the launcher, which knows the service manager."""
    if every is None:
        return None
    link = keeper_socket.dup()

    def report(state: str) -> None:
        with suppress(BlockingIOError):  # a launcher without room for it does not read, and so has nothing to pass on
            send(link, TURNED, state)

    return StateReporter(report, every)


def _metrics_server(config: WorkerConfig, vitals: Vitals) -> AbstractContextManager[object]:
    """Raises InvalidOptions where it cannot be."""
    if config.metrics_port is None:
        return nullcontext()
    try:
        from stem_iso.worker.reporting.metrics_server import MetricsServer
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "prometheus_client":
            raise
        raise InvalidOptions("--metrics-port: needs the extra metrics: pip install 'stem_iso[metrics]'") from None
    server = MetricsServer(config.metrics_host, config.metrics_port, vitals)
    log.info("metrics are at %s", server.url)
    return server


def _take_no_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)


def _leave(code: int, outlet: LogWriter) -> None:
    """Exit as every program does, or at once where a thread of the application, or a stalled reader of the log, would hold that up."""
    words = threading.Thread(target=_last_words, args=(outlet,), name="stem-iso-last-words", daemon=True)
    words.start()
    words.join(LAST_WORDS)
    main = threading.main_thread()
    if any(thread is not main and thread.is_alive() and not thread.daemon for thread in threading.enumerate()) or words.is_alive():
        os._exit(code)
    sys.exit(code)


def _last_words(outlet: LogWriter) -> None:
    outlet.flush()  # `dictConfig` makes logging forget which handlers it is to flush
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the application may have closed or replaced them
            stream.flush()


def main(link: int, memfd: int) -> None:
    """The descriptors of the keeper's socket and of the memfd that holds the `CoreStart`."""
    start = msgspec.json.decode(os.pread(memfd, os.fstat(memfd).st_size, 0), type=CoreStart)
    os.close(memfd)
    sys.argv[:] = map(os.fsdecode, start.argv)
    keeper_socket = socket.socket(fileno=link)
    farewell = keeper_socket.dup()  # the engine closes its own; the last word comes after that
    _take_no_signals()
    become_subreaper()  # what the application daemonizes while it is imported stays ours: the keeper kills orphans that fall to it
    sys.setswitchinterval(SWITCH_INTERVAL)
    set_title(f"stem_iso: worker {start.config.app}".strip())
    try:
        outlet = configure_logging(start.config.log_level, start.config.log_format, start.config.log_file)
    except InvalidOptions as error:  # the launcher could open it: it has been changed since
        to_stderr(f"Error: {lines(str(error), '')}\n")
        send(farewell, GOODBYE, USAGE)
        os._exit(USAGE)
    sys.path[:] = start.path  # until here imports were ours alone
    code = run_core(start, keeper_socket, outlet)
    send(farewell, GOODBYE, code)
    _leave(code, outlet)

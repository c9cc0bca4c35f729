"""The runner of handlers, in an isolate and inline: the bytes of a call in, the bytes of its reply out.

    payload ── decode ──> header, arguments ── convert ──> call ── encode ──> (SUCCEEDED | FAILED | RETRY | REJECTED, bytes)
                             │                              │
                             └── TaskContext over the port ─┘     the same inline and isolated; only the port differs

    isolate:  boot(payload, port) ──> TaskRunner: define (once per entrypoint), run (once per call)
    inline:   run_sync(entrypoint, payload, port) in a thread · await run_async(entrypoint, payload, port) on a loop

Rules
 1. Nothing here raises what a handler raised: it is a FAILED reply, `SystemExit` and `SoftTimeLimitExceeded` included. (`run_async` lets a
    cancellation through that came from outside: whoever cancelled knows why.) What raises while that reply is made is a FAILED reply too.
 2. `port.armed()` goes around the handler, and the middleware around it, alone.
 3. Imports no broker, no event loop and no pickle before the application or an entrypoint needs one.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

import msgspec

from stem_iso.app import Stem
from stem_iso.client.app_location import NotThere, current_app, import_app, import_beside, import_modules
from stem_iso.client.broker_pool import BrokerConfig
from stem_iso.errors import PayloadTooLarge, StemError
from stem_iso.isolate import payload as payloads
from stem_iso.isolate.child.fork import ForkedChildGuard
from stem_iso.isolate.interfaces import FAILED, REJECTED, RETRY, SUCCEEDED, CorePort
from stem_iso.outcome import Failed, TaskError
from stem_iso.task.arguments import InvalidArguments
from stem_iso.task.codec import pack
from stem_iso.task.context import RetryRequested, TaskContext, entered
from stem_iso.task.context_protocol import decode_call
from stem_iso.task.failure import failed, message_of
from stem_iso.task.handler import Entrypoint, FunctionHandler
from stem_iso.task.options import TaskOptions
from stem_iso.text import cut
from stem_iso.worker.app_transfer import add, refuse_others, unpack
from stem_iso.worker.entrypoints import LOGS_OBSERVED, BootPayload, Definition, function_at, logs_are_observed, signature_of

MAX_RESULT_BYTES = 16 << 20

Reply = tuple[int, bytes]

_encode = msgspec.msgpack.Encoder().encode


# -- one call --------------------------------------------------------------------------------------------------------------------------


def run_sync(
    entrypoint: Entrypoint,
    payload: bytes,
    port: CorePort,
    *,
    max_result_bytes: int = MAX_RESULT_BYTES,
    max_payload_bytes: int | None = None,
    main: str | None = None,
) -> Reply:
    """Run a call on this thread; a coroutine in a loop of its own. `main` is what `__main__` means, if not this process's own."""
    prepared = _surely(_prepared, entrypoint, payload, port, max_payload_bytes, main)
    if not isinstance(prepared, TaskContext):
        return prepared
    value = None  # of a handler whose exception a middleware swallowed
    try:
        with entered(prepared):
            with port.armed(), entrypoint.around(prepared):
                value = _value(entrypoint, prepared)
            prepared.finish()
    except BaseException as error:  # user code may raise anything
        return _surely(_ended_by, error, prepared, main)
    return _surely(_result, entrypoint, value, max_result_bytes, main)


async def run_async(
    entrypoint: Entrypoint,
    payload: bytes,
    port: CorePort,
    *,
    max_result_bytes: int = MAX_RESULT_BYTES,
    max_payload_bytes: int | None = None,
    main: str | None = None,
) -> Reply:
    """Run a call on this loop, in the current task. A cancellation of that task from outside is raised."""
    import asyncio

    prepared = _surely(_prepared, entrypoint, payload, port, max_payload_bytes, main)
    if not isinstance(prepared, TaskContext):
        return prepared
    loop, prepared.offload = asyncio.get_running_loop(), asyncio.to_thread
    value = None  # as above
    try:
        with entered(prepared):
            with port.armed(), entrypoint.around(prepared), ForkedChildGuard():
                value = await entrypoint(prepared, prepared.args)
            prepared.finish()
    except BaseException as error:  # user code may raise anything
        if not loop.is_running():  # it was broken, and its coroutines are being thrown away: nobody waits for a reply
            raise
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        return _surely(_ended_by, error, prepared, main)
    return _surely(_result, entrypoint, value, max_result_bytes, main)


def _prepared(entrypoint: Entrypoint, payload: bytes, port: CorePort, most: int | None, main: str | None) -> TaskContext | Reply:
    """The context of the call, its arguments in it; or the reply of a call that cannot be made."""
    try:
        header, data = decode_call(payload)
        context = TaskContext(header, port, entrypoint.sender, max_payload_bytes=most)
        context.main = main
        context.args = entrypoint.unpack(data, header.previous if header.after else None)
    except InvalidArguments as error:
        return REJECTED, _encode(["invalid-arguments", message_of(error)])
    except BaseException as error:  # converting arguments runs user code: the __post_init__ of a dataclass, the import of its annotation
        return _failed(failed(error, main))
    return context


P = ParamSpec("P")
R = TypeVar("R")


def _surely(step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | Reply:
    """The value of the step; where the step raises, a reply that names the error: a call without an end would keep its seat for ever."""
    try:
        return step(*args, **kwargs)
    except BaseException as error:  # the steps read what users made, and memory may be short: only this call ends
        return FAILED, last_resort(error)


def failed_reply(error: BaseException, main: str | None = None) -> Reply:
    return _failed(failed(error, main))


def last_resort(error: BaseException) -> bytes:
    """A FAILED reply's bytes, made of nothing that a user can have touched."""
    kind = type.__dict__["__name__"].__get__(type(error))
    message = f"the end of the call could not be reported ({cut(kind, 200)} while its reply was made)"
    return _encode([TaskError(type="RuntimeError", message=message, retryable=False), ("RuntimeError", "Exception", "BaseException")])


def _value(entrypoint: Entrypoint, context: TaskContext) -> Any:
    with ForkedChildGuard():
        value = entrypoint(context, context.args)
    if not inspect.isawaitable(value):
        return value
    import asyncio

    from stem_iso.worker.coroutines import run_coroutine

    context.offload = asyncio.to_thread
    return (context.run_coroutine or run_coroutine)(value)


def _ended_by(error: BaseException, context: TaskContext, main: str | None) -> Reply:
    try:
        context.finish()  # what it wrote counts, however it ended
    except BaseException as worse:  # a value of `meta` that is no data; the handler's own error says more, if there is one
        error = error if error is not worse else worse
    if isinstance(error, RetryRequested):
        retry = error.retry
        return RETRY, _encode([retry.countdown, retry.eta, retry.max_retries])
    return _failed(failed(error, main))


def _result(entrypoint: Entrypoint, value: Any, most: int, main: str | None) -> Reply:
    name = entrypoint.name
    try:
        packed = pack(value)
    except BaseException as error:  # packing reads user objects
        refusal = TypeError(
            f"{name} returned a value of type {type(value).__name__} that cannot be stored: {failed(error, main).error.message}"
        )
        return _failed(failed(refusal, main, retryable=False))
    if len(packed) > most:
        text = f"{name} returned {len(packed)} bytes, more than max_result_bytes ({most}); store them elsewhere and return where"
        return _failed(failed(PayloadTooLarge(text), main, retryable=False))
    return SUCCEEDED, packed


def _failed(failure: Failed) -> Reply:
    return FAILED, _encode([failure.error, failure.kinds])


# -- an isolate ------------------------------------------------------------------------------------------------------------------------


def boot(payload: bytes, port: CorePort) -> TaskRunner:
    """Raises what user code raises."""
    boot_payload = settle_in(payload)
    runner = TaskRunner(boot_payload)
    runner.start()
    return runner


def settle_in(payload: bytes) -> BootPayload:
    """Make this process what the parent is, as far as handlers can see: folder and path; the application comes next."""
    boot_payload = msgspec.msgpack.decode(payload, type=BootPayload)
    sys.path[:] = boot_payload.path
    if os.getcwd() != boot_payload.folder:
        os.chdir(boot_payload.folder)
    return boot_payload


def _bare(boot_payload: BootPayload) -> Stem:
    """An application whose tasks are carried here one by one, with their options: its own defaults have gone into those."""
    app = Stem(boot_payload.broker)
    app.defaults = TaskOptions()
    return app


class TaskRunner:
    """`isolate.interfaces.Runner` for tasks."""

    def __init__(self, boot_payload: BootPayload) -> None:
        self.boot_payload = boot_payload
        self._carried = not boot_payload.location
        import_modules([boot_payload.first] if boot_payload.first else [])
        try:
            self._app = import_app(boot_payload.location, Stem) if boot_payload.location else _bare(boot_payload)
        except NotThere:
            if not boot_payload.of_program:
                raise
            # The program makes its application below `if __name__ == "__main__":`, which does not run here: its code is carried.
            self._app, self._carried = _bare(boot_payload), True
        self._app.site = BrokerConfig(boot_payload.broker, self._app.site.overrides)
        self._app.site.folder, self._app.site.in_isolate, self._app.site.withheld = boot_payload.site_folder, True, boot_payload.withheld
        current_app.set(self._app)
        import_modules(boot_payload.included)
        import_beside(boot_payload.modules)
        found = {handler.name: signature_of(handler, boot_payload.main) for handler in self._app.registry}
        if logs_are_observed():
            found[LOGS_OBSERVED] = ""
        self.ready = msgspec.msgpack.encode(found)

    def start(self) -> None:
        if self._carried:
            unpack(self._app, self.boot_payload.carried)
        else:
            refuse_others(self._app.middleware, self.boot_payload.middleware, self.boot_payload.main)
        if self._app.isolate_settings is not None:
            self._app.isolate_settings.adopt(self.boot_payload.settings)
        for hook in self._app.isolate_start_hooks:
            value = hook()
            if inspect.isawaitable(value):
                from stem_iso.worker.coroutines import run_coroutine

                run_coroutine(value)

    def define(self, definition: bytes) -> object:
        """The entrypoint; where it cannot be had, what to answer to each call of it: a define that raises would cost the isolate."""
        decoded = msgspec.msgpack.decode(definition, type=Definition)
        try:
            return self._entrypoint(decoded)
        except BaseException as error:  # importing and unpickling run user code
            return _failed(failed(error, self.boot_payload.main, retryable=False))

    def run(self, entry: object, payload: bytes, port: CorePort) -> Reply:
        if not isinstance(entry, Entrypoint):
            refusal: Any = entry
            return int(refusal[0]), bytes(refusal[1])
        boot_payload = self.boot_payload
        sizes = {"max_result_bytes": boot_payload.max_result_bytes, "max_payload_bytes": boot_payload.max_payload_bytes}
        return run_sync(entry, payload, port, **sizes, main=boot_payload.main)

    def _entrypoint(self, definition: Definition) -> Entrypoint:
        add(self._app.registry, definition.catalog)
        if definition.pickled is not None:
            code, hints = payloads.unpack(definition.pickled)
        elif definition.place is not None:
            import_module(definition.place.partition(":")[0])
            code, hints = function_at(definition.place, definition.name), None
            if code is None:
                raise StemError(f"{definition.place} is not to be found in the isolate")
        else:
            return self._app.entrypoint(definition.name)
        return self._wrapped(definition, code, hints)

    def _wrapped(self, definition: Definition, code: Callable[..., Any], hints: dict[str, Any] | None) -> Entrypoint:
        if not definition.whole:
            return Entrypoint(definition.name, code, sender=self._app)
        options = TaskOptions(redact=definition.redact)
        handler: FunctionHandler[Any] = FunctionHandler(code, definition.name, options, True, hints)
        return Entrypoint(definition.name, handler.call, handler, self._app)

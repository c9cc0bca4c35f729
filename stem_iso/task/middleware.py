"""Middleware: code of an application around every publish, and around every handler.

    class Traced(Middleware):
        def enqueue(self, envelopes, call_next):                # in the process that enqueues
            return call_next([replace(each, headers={**each.headers, "trace": trace()}) for each in envelopes])

        @contextmanager
        def around(self, context):                              # where the handler runs
            with span(context.headers.get("trace")):
                yield

    app.middleware.add(Traced())                                # at the top of the application's module

Rules
 1. The first added is the outermost, on both sides.
 2. `enqueue` sees all envelopes of a batch; `call_next` publishes them in one step and answers their ids, in order. What raises before
    `call_next` has refused: nothing is sent, and the producer gets the error. Envelopes are frozen: `msgspec.structs.replace` makes a
    changed one. What was computed from a field is not computed again: the unique lock follows neither `args` nor `queue`.
    A handler's enqueue runs it in the handler's process. A canvas is one batch of all its parts, which keep their ids and queues; a retry
    is not enqueued again, and carries what its first envelope carried; nor is what a schedule fires, which any worker may do, of whatever
    application.
 3. `around` is a context manager, because one such shape serves sync and async handlers alike: it is entered in the thread of a sync
    handler, in the task of an async one (whose loop it must not block), in the isolate of an isolated one. It is part of the attempt: its
    time counts against the limits, what it raises is the attempt's error and may be retried, and if it swallows what the handler raised,
    the task succeeds with None. `context.args` are converted by then; arguments that do not fit never come here. `context.retry()` and the
    soft limit's "raise" (in a coroutine: a cancellation) pass through it as exceptions that are no `Exception`.
 4. An object with only one of the two methods will do. A task that is simply called, outside a worker, runs without middleware.
 5. What is made for error trackers and traces may have two methods more, both for workers' processes alone: `observe(signals)`, called with
    `app.signals` when a worker starts; and `retry(envelope, error)`, which answers the envelope of the next attempt, and is called on
    the thread of the queue: it must not block. One of those whose SDK is switched on for a process, and not for an application, is added
    by `add_everywhere`: it is outside of all others, in whatever application, and is left out where one of its class was added.
 6. Isolates have the middleware that importing the application's module adds. Should that be another than the worker has, because some was
    added elsewhere, their boot fails and says so; where the application itself cannot be imported (a REPL, a function), it is carried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import msgspec

from stem_iso import validation
from stem_iso.errors import InvalidOptions, StemError
from stem_iso.outcome import TaskError
from stem_iso.task.codec import unpack
from stem_iso.task.envelope import Envelope, Undecodable, decode, encode
from stem_iso.task.names import dotted
from stem_iso.task.options import check_carried

if TYPE_CHECKING:
    from stem_iso.task.context import TaskContext

Publish = Callable[[Sequence[Envelope]], list[str]]
NOTHING = nullcontext()


class Enqueuing(Protocol):
    """Something with `enqueue`."""

    def enqueue(self, envelopes: Sequence[Envelope], call_next: Publish) -> list[str]:
        """Publish these through `call_next` and return the ids that it answers, one for each envelope given here."""


class Surrounding(Protocol):
    """Something with `around`."""

    def around(self, context: TaskContext) -> AbstractContextManager[object]:
        """Entered before the handler runs, left after it, with what it raised."""


class Middleware(Enqueuing, Surrounding, Protocol):
    """Subclass it and override one of the two, or both; as they stand, they do nothing."""

    def enqueue(self, envelopes: Sequence[Envelope], call_next: Publish) -> list[str]:
        return call_next(envelopes)

    def around(self, context: TaskContext) -> AbstractContextManager[object]:
        return NOTHING


M = TypeVar("M", bound=Enqueuing | Surrounding)


class MiddlewareStack:
    """`app.middleware`: in the order in which they were added; those that publish or run meanwhile go on with what they began with."""

    everywhere: ClassVar[tuple[Any, ...]] = ()  # of the process, as the SDK that they serve; replaced, never changed

    def __init__(self) -> None:
        self._all: tuple[Enqueuing | Surrounding, ...] = ()
        self._enqueuing: tuple[Enqueuing, ...] = ()  # those that do something there, as the next
        self._surrounding: tuple[Surrounding, ...] = ()

    def add(self, middleware: M) -> M:
        """Inside of all that were added before. Returns it. Raises InvalidOptions for what has neither `enqueue` nor `around`."""
        enqueues, surrounds = _does(middleware, "enqueue"), _does(middleware, "around")
        if isinstance(middleware, type) or not (enqueues or surrounds or Middleware in type(middleware).__mro__):
            raise InvalidOptions(f"middleware: {middleware!r} must be an object with enqueue(envelopes, call_next) or around(context)")
        self._all = (*self._all, middleware)
        if enqueues:
            self._enqueuing = (*self._enqueuing, middleware)  # type: ignore[arg-type]  # `_does` has seen that it has the method
        if surrounds:
            self._surrounding = (*self._surrounding, middleware)  # type: ignore[arg-type]  # as above
        return middleware

    @classmethod
    def add_everywhere(cls, middleware: Surrounding) -> None:
        """Outside of all others, of every application in this process; instead of one of its class that was added so before."""
        MiddlewareStack.everywhere = (*(each for each in MiddlewareStack.everywhere if type(each) is not type(middleware)), middleware)

    def having(self, method: str) -> list[Any]:
        """Those with this method, the outermost first, those of the process among them."""
        own = {type(each) for each in self._all}
        every = (*(each for each in MiddlewareStack.everywhere if type(each) not in own), *self._all)
        return [each for each in every if _does(each, method)]

    def observe(self, signals: Any) -> None:
        """Called where a worker starts. Raises what they raise."""
        for each in self.having("observe"):
            each.observe(signals)

    def retry(self, envelope: Envelope, error: TaskError) -> Envelope:
        """The next attempt's envelope, after an attempt that ended with this error. Raises what they raise."""
        for each in self.having("retry"):
            envelope = each.retry(envelope, error)
        return envelope

    def __iter__(self) -> Iterator[Enqueuing | Surrounding]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def enqueue(self, envelopes: Sequence[Envelope], publish: Publish) -> list[str]:
        """Through all of them, then `publish`. Raises what they raise, StemError for one that answers no ids, and InvalidOptions for an
        envelope of theirs that could not travel.
        """
        enqueuing = self.having("enqueue") if MiddlewareStack.everywhere else self._enqueuing
        if not enqueuing:
            return publish(envelopes)
        step: Publish = _Checked(envelopes, publish)
        for each in reversed(enqueuing):
            step = _Link(each, step)
        return step(envelopes)

    def around(self, context: TaskContext) -> AbstractContextManager[object]:
        surrounding = self.having("around") if MiddlewareStack.everywhere else self._surrounding
        return _nested(surrounding, context) if surrounding else NOTHING


def _does(middleware: object, method: str) -> bool:
    own = getattr(type(middleware), method, None) or getattr(middleware, method, None)
    return callable(own) and own is not getattr(Middleware, method, None)


@contextmanager
def _nested(surrounding: Sequence[Surrounding], context: TaskContext) -> Iterator[None]:
    with ExitStack() as stack:
        for each in surrounding:
            stack.enter_context(each.around(context))
        yield


class _Link:
    """One middleware, with what comes after it."""

    def __init__(self, middleware: Enqueuing, call_next: Publish) -> None:
        self._middleware, self._next = middleware, call_next

    def __call__(self, envelopes: Sequence[Envelope]) -> list[str]:
        ids = self._middleware.enqueue(envelopes, self._next)
        if not isinstance(ids, list) or len(ids) != len(envelopes) or not all(isinstance(id, str) for id in ids):
            mismatch = f"{len(envelopes)} envelopes, and it answered {ids!r}: return what call_next(envelopes) returns"
            raise StemError(f"{dotted(type(self._middleware))}.enqueue must answer one id for each of {mismatch}")
        return ids


class _Checked:
    """What middleware made of the envelopes is checked before it is sent, as options are."""

    def __init__(self, made: Sequence[Envelope], publish: Publish) -> None:
        self._made, self._publish = {id(envelope) for envelope in made}, publish

    def __call__(self, envelopes: Sequence[Envelope]) -> list[str]:
        for envelope in envelopes:
            if id(envelope) not in self._made:
                _refuse_nonsense(envelope)
        return self._publish(envelopes)


def _refuse_nonsense(envelope: Envelope) -> None:
    if not isinstance(envelope, Envelope):
        raise InvalidOptions(f"a middleware enqueues {envelope!r}, which is no Envelope")
    if isinstance(envelope.priority, int):
        validation.priority("priority", envelope.priority)  # before the decoder, whose words are for machines
    try:
        args = unpack(decode(encode(envelope)).args)
    except (msgspec.MsgspecError, Undecodable, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidOptions(f"a middleware made an envelope of {envelope.name!r} that cannot travel: {error}") from None
    if not isinstance(args, dict):
        raise InvalidOptions(f"a middleware made arguments of {envelope.name!r} that are no map of names: {args!r}")
    validation.queue("queue", envelope.queue)
    check_carried(envelope)

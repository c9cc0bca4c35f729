"""The iterator behind `map`: a window of calls that moves along the input.

    input ── chunk ──> submit ──> in flight: [oldest ... newest]      at most `window`
                                     └─ asked for: wait, hand out, submit the next

Where the pool is shut before the input is at its end, the results of what was submitted come first, and then the RuntimeError, once; of the
input nothing is taken that is not submitted.

It is an iterator and no generator, since a generator that was never begun has no end in which it could cancel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from itertools import islice
from operator import length_hint
from time import monotonic
from typing import Any, TypeVar

from stem_iso.errors import let_out
from stem_iso.isolate.child.functions import run_chunk
from stem_iso.isolate.remote_errors import rebuild
from stem_iso.validation import LONGEST, duration

T = TypeVar("T")

Submit = Callable[..., Future[Any]]


class Results(Iterator[T]):
    """Owned by whoever iterates. What raises is raised once for each item that it concerns."""

    def __init__(
        self,
        submit: Submit,
        refuse_if_shut: Callable[[], None],
        function: Callable[..., T],
        inputs: tuple[Iterable[Any], ...],
        chunksize: int,
        window: int,
        timeout: float | None,
    ) -> None:
        self._flying: deque[tuple[Future[Any], int]] = deque()
        self._ready: deque[Callable[[], T]] = deque()  # of the oldest chunk
        for name, value in (("chunksize", chunksize), ("buffersize", window)):
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value!r}")
        if timeout is not None and timeout > LONGEST:
            duration("timeout", timeout)
        self._submit, self._function, self._chunksize, self._window = submit, function, chunksize, window
        self._refuse_if_shut, self._inputs = refuse_if_shut, [iter(each) for each in inputs]
        self._items: Iterator[tuple[Any, ...]] | None = zip(*self._inputs, strict=False)
        self._broken: Exception | None = None  # what the input, or the end of the pool, raised: raised behind the results before it
        self._ends_at = None if timeout is None else monotonic() + timeout
        self._fill()

    def __next__(self) -> T:
        if not self._ready:
            self._land()
        try:
            return self._ready.popleft()()
        except StopIteration as error:
            raise let_out(error) from error
        finally:
            del self  # the traceback of a failure would keep it: a loop that is left by one is to cancel the rest

    def close(self) -> None:
        """Cancel what is in flight; there are no more results."""
        self._items = None
        self._ready.clear()
        while self._flying:
            self._flying.pop()[0].cancel()  # the newest first: what waits must not begin because of what is killed before it

    def __del__(self) -> None:
        self.close()

    def _land(self) -> None:
        self._fill()
        if not self._flying:
            self._end()
        future, size = self._flying[0]
        try:
            left = None if self._ends_at is None else max(0.0, self._ends_at - monotonic())
            failed = future.exception(left) is not None
        except CancelledError:  # by the end of the pool
            failed = True
        except TimeoutError:
            self.close()
            raise
        self._flying.popleft()
        if failed:
            self._ready.extend([future.result] * size)
        elif self._chunksize == 1:
            self._ready.append(future.result)
        else:
            self._ready.extend(Item(*item) for item in future.result())
        self._fill()

    def _end(self) -> None:
        broken, self._broken = self._broken, None
        raise StopIteration if broken is None else broken

    def _fill(self) -> None:
        while self._items is not None and len(self._flying) < self._window:
            try:
                chunk = self._take(self._items)
                if chunk:
                    self._flying.append((self._send(chunk), len(chunk)))
                else:
                    self._items = None
            except Exception as error:  # user code; or the pool was shut
                self._broken, self._items = error, None

    def _take(self, items: Iterator[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """The next chunk, empty at the end. Raises RuntimeError where it could not be submitted, and what the input raises."""
        try:
            self._refuse_if_shut()
        except RuntimeError:
            if any(length_hint(each, 1) == 0 for each in self._inputs):
                return []
            raise
        return list(islice(items, self._chunksize))

    def _send(self, chunk: list[tuple[Any, ...]]) -> Future[Any]:
        if self._chunksize == 1:
            return self._submit(self._function, *chunk[0])
        return self._submit(run_chunk, self._function, chunk)


class Item:
    """One result of a chunk, or what to raise for it."""

    __slots__ = ("_failed", "_value")

    def __init__(self, failed: bool, value: Any) -> None:
        self._failed, self._value = failed, value

    def __call__(self) -> Any:
        if self._failed:
            raise rebuild(*self._value)
        return self._value

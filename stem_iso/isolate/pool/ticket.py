"""Caller of one call of a pool: it settles the future, and frees what the call held."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stem_iso.isolate import payload as payloads
from stem_iso.isolate.interfaces import Answer, LimitNotice
from stem_iso.isolate.pool.future import CANCELLED, FINISHED
from stem_iso.isolate.pool.reply import Reply, error_of
from stem_iso.outcome import Outcome, Stopped, Succeeded

if TYPE_CHECKING:
    from stem_iso.isolate.pool.backend import PoolBackend
    from stem_iso.isolate.pool.future import IsolateFuture
    from stem_iso.isolate.pool.gate import OpenCalls


class Memfd:
    """A descriptor that is closed when nobody refers to it: also where Ctrl-C tore a submit in two, and no end of the call is reported."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __del__(self) -> None:
        os.close(self._descriptor)


class PoolCall:
    """`isolate.interfaces.Caller`; made for one call. Nothing in it runs user code: what does is put aside."""

    __slots__ = ("_desk", "_gate", "_memory", "future", "memfd")

    def __init__(self, desk: PoolBackend, gate: OpenCalls, future: IsolateFuture[object], descriptor: int | None) -> None:
        self._desk, self._gate, self.future = desk, gate, future
        self.memfd = None if descriptor is None else Memfd(descriptor)
        self._memory: memoryview | None = None

    def sent(self) -> None:
        self.future.begun()

    def asked(self, payload: bytes, answer: Answer | None) -> None:
        """A plain function has no context to ask; one that writes to the call pipe by itself is answered with nothing."""
        if answer is not None:
            answer(b"")

    def beat(self) -> None:
        """It counts for the engine alone."""

    def limit_reached(self, notice: LimitNotice) -> None:
        self._desk.notify(notice)

    def output(self, level: int, logger: str, text: str) -> None:
        self._desk.printed(level, logger, text)

    def received(self, descriptor: int) -> None:
        try:
            self._memory = payloads.mapped(descriptor)
        except (payloads.UnreadablePayload, OSError):
            self._memory = None  # whoever opens the reply gets the error

    def ended(self, outcome: Outcome) -> None:
        try:
            if type(outcome) is Succeeded:
                self.future.settle(FINISHED, Reply(outcome.result, self._memory))
            elif type(outcome) is Stopped:
                self.future.settle(CANCELLED)
            else:
                self.future.settle(FINISHED, error=error_of(outcome))
        finally:  # also where no thread can be started for its callbacks: who waits for the last call must not wait for ever
            self.close()

    def close(self) -> None:
        """The engine says no more about it."""
        self._memory = self.memfd = None
        self._desk.leave(self._gate, self)

"""Port of a context: what a context needs of the transport below it.

ContextPort   `isolate.interfaces.CorePort` is one; this layer knows no isolation
LocalPort     of a task that is simply called: nobody listens, nothing is limited, and nothing is asked of a broker
"""

from __future__ import annotations

from typing import Protocol

from stem_iso.task.context_protocol import ContextAnswer, EnqueueRequest, RevokeRequest, decode_request, encode_answer


class ContextPort(Protocol):
    @property
    def soft_deadline(self) -> float | None: ...

    @property
    def hard_deadline(self) -> float | None: ...

    @property
    def isolated(self) -> bool: ...

    @property
    def cpus(self) -> frozenset[int] | None: ...

    def request(self, payload: bytes) -> bytes: ...

    def send(self, payload: bytes) -> None: ...

    def beat(self) -> None: ...


class LocalPort:
    soft_deadline: float | None = None
    hard_deadline: float | None = None
    isolated = False
    cpus: frozenset[int] | None = None

    def request(self, payload: bytes) -> bytes:
        match decode_request(payload):
            case EnqueueRequest():
                return encode_answer(ContextAnswer(error=("StemError", "a local context has no worker to enqueue through")))
            case RevokeRequest():
                return encode_answer(ContextAnswer(False))
            case _:
                return encode_answer(ContextAnswer())

    def send(self, payload: bytes) -> None:
        pass

    def beat(self) -> None:
        pass

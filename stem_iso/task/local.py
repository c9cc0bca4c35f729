"""Local port of a task that is simply called: nobody listens, nothing is limited, and nothing is asked of a broker."""

from __future__ import annotations

from stem_iso.task.context_protocol import ContextAnswer, EnqueueAsked, RevokeAsked, decode_saying, encode_answer


class LocalPort:
    soft_deadline: float | None = None
    hard_deadline: float | None = None
    isolated = False
    cpus: frozenset[int] | None = None

    def ask(self, payload: bytes) -> bytes:
        match decode_saying(payload):
            case EnqueueAsked():
                return encode_answer(ContextAnswer(error=("StemError", "a local context has no worker to enqueue through")))
            case RevokeAsked():
                return encode_answer(ContextAnswer(False))
            case _:
                return encode_answer(ContextAnswer())

    def tell(self, payload: bytes) -> None:
        pass

    def beat(self) -> None:
        pass

"""Protocol between a worker and the code that runs a handler, as bytes: the call itself, and the requests of its context.

    worker ── CallHeader + args ──> handler's side (an isolate, or a thread or loop of the worker)
    worker <── ContextRequest ───── context.progress(), .meta[...] = ..., .reported(), .extend_lease(), .enqueue(), .revoke()
    worker ─── ContextAnswer ─────> for the requests that wait for one

The same bytes inline and isolated; only the transport differs.
"""

from __future__ import annotations

from typing import Any

import msgspec

from stem_iso.task.canvas.tree import Canvas
from stem_iso.task.envelope import Envelope


class CallHeader(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the context shows. The arguments follow it, still encoded: a msgpack map by parameter name."""

    id: str
    name: str
    queue: str
    run: int = 0
    attempt: int = 0
    max_retries: int = 0
    headers: dict[str, Any] = {}
    meta: dict[str, Any] = {}
    parent_id: str | None = None
    root_id: str | None = None
    previous: bytes | None = None  # the result before it in a canvas, encoded
    after: bool = False  # and that it is the first argument
    soft_limit: float | None = None  # seconds, for messages; the deadlines themselves come from the port
    hard_limit: float | None = None
    retry_for: tuple[str, ...] | None = None  # with the next and `max_retries`: whether an error is the last one can be known there
    dont_retry_for: tuple[str, ...] | None = None
    worker_id: str = ""
    redact: tuple[str, ...] = ()  # names of arguments that no error tracker is to be told
    settings: dict[str, Any] = {}  # of a framework, which the worker's process has changed; of an isolated call


class ProgressRequest(msgspec.Struct, frozen=True, tag="progress", array_like=True):
    """No answer."""

    percent: float
    data: Any = None


class MetaRequest(msgspec.Struct, frozen=True, tag="meta", array_like=True):
    """The whole of `context.meta` after a change. No answer."""

    meta: dict[str, Any]


class ReportedRequest(msgspec.Struct, frozen=True, tag="reported", array_like=True):
    """An error tracker has this attempt's error, from where the handler ran. No answer."""


class ExtendRequest(msgspec.Struct, frozen=True, tag="extend", array_like=True):
    """Answer: None, or LeaseLost."""

    by: float


class EnqueueRequest(msgspec.Struct, frozen=True, tag="enqueue", array_like=True):
    """Ready-made envelopes, lineage included. Answer: their ids (of the lock's holder, where unique)."""

    envelopes: list[Envelope]


class ComposeRequest(msgspec.Struct, frozen=True, tag="compose", array_like=True):
    """A canvas, laid out. No value; its ids are known."""

    canvas: Canvas


class RevokeRequest(msgspec.Struct, frozen=True, tag="revoke", array_like=True):
    """Answer: whether there was anything to revoke."""

    id: str
    terminate: bool = False


ContextRequest = ProgressRequest | MetaRequest | ReportedRequest | ExtendRequest | EnqueueRequest | ComposeRequest | RevokeRequest


class ContextAnswer(msgspec.Struct, frozen=True, array_like=True):
    """`error` is the name of a class of `stem_iso.errors` (or "RemoteError") and its message, None where all is well."""

    value: Any = None
    error: tuple[str, str] | None = None


AT_ONCE = 16  # payloads of the largest size that a handler may ask for in one step

_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(CallHeader)
_request_decoder = msgspec.msgpack.Decoder(ContextRequest)
_answer_decoder = msgspec.msgpack.Decoder(ContextAnswer)


def encode_call(header: CallHeader, args: msgspec.Raw) -> bytes:
    head = _encoder.encode(header)
    return b"".join((len(head).to_bytes(4, "little"), head, bytes(args)))


def decode_call(payload: bytes) -> tuple[CallHeader, bytes]:
    """The header, and the arguments still encoded."""
    end = 4 + int.from_bytes(payload[:4], "little")
    return _header_decoder.decode(payload[4:end]), payload[end:]


def encode_request(request: ContextRequest) -> bytes:
    return _encoder.encode(request)


def decode_request(payload: bytes) -> ContextRequest:
    """Raises msgspec.MsgspecError on anything else: a handler may write whatever it likes to its pipe."""
    request: ContextRequest = _request_decoder.decode(payload)
    return request


def encode_answer(answer: ContextAnswer) -> bytes:
    return _encoder.encode(answer)


def decode_answer(payload: bytes) -> ContextAnswer:
    return _answer_decoder.decode(payload)

"""The endings of calls: a reply, or how a call ended in its isolate (`lifecycle.Ending`), becomes the `Outcome` for its caller. Pure."""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass

import msgspec

from stem_iso.isolate.engine.isolate import signal_name
from stem_iso.isolate.engine.lifecycle import Cause
from stem_iso.isolate.interfaces import FAILED, REJECTED, RETRY, STOPPED, SUCCEEDED, TIMED_OUT
from stem_iso.isolate.wire import UNREADABLE, Garbage
from stem_iso.outcome import Crashed, Failed, Outcome, Rejected, RetryAsked, Stopped, StopReason, Succeeded, TaskError, TimedOut
from stem_iso.text import cut, cut_inside


@dataclass(frozen=True, slots=True)
class Exit:
    """What the keeper reported. `code` and `status` as in waitid(2), None where nobody could tell; times are monotonic, 0: unknown."""

    code: int | None = None
    status: int = 0
    killed: tuple[tuple[int, str], ...] = ()
    signalled_at: float = 0.0
    died_at: float = 0.0

    @property
    def exit_code(self) -> int | None:
        return self.status if self.code == os.CLD_EXITED else None

    @property
    def signal(self) -> str | None:
        return signal_name(self.status) if self.code in (os.CLD_KILLED, os.CLD_DUMPED) else None

    def before(self, limit_at: float) -> bool:
        """Whether the process had ended when the limit came, or ended in another way than by the kill for it; False where nobody knows."""
        return self.code is not None and (self.signal != "SIGKILL" or self.died_at < limit_at)


UNKNOWN_EXIT = Exit()


def earliest(*times: float) -> float:
    """Of several looks at one event, 0 being none; 0 if nobody saw it."""
    return min((each for each in times if each), default=0.0)


LONGEST = 1e12  # seconds: no clock and no calendar reaches it

_failed = msgspec.msgpack.Decoder(tuple[TaskError, tuple[str, ...]])
_retry = msgspec.msgpack.Decoder(tuple[float | None, float | None, int | None])
_rejected = msgspec.msgpack.Decoder(tuple[str, str])
_timed_out = msgspec.msgpack.Decoder(TimedOut)
_stopped = msgspec.msgpack.Decoder(tuple[StopReason, bool])


def of_reply(tag: int, payload: bytes) -> Outcome:
    """Raises Garbage where the bytes are no reply: the handler can write to our pipe."""
    try:
        if tag == SUCCEEDED:
            return Succeeded(payload)
        if tag == FAILED:
            return Failed(*_failed.decode(payload))
        if tag == RETRY:
            return _retry_asked(*_retry.decode(payload))
        if tag == REJECTED:
            return Rejected(*_rejected.decode(payload))
    except UNREADABLE as error:
        raise Garbage(f"a reply that cannot be read: {error}") from None
    raise Garbage(f"a reply of kind {tag}")


def _retry_asked(countdown: float | None, eta: float | None, max_retries: int | None) -> RetryAsked:
    """Raises ValueError for times and counts that a context refuses: they would fail where they are added up or stored."""
    for seconds in (countdown, eta):
        if seconds is not None and not -LONGEST <= seconds <= LONGEST:
            raise ValueError(f"{seconds} s")
    if max_retries is not None and not 0 <= max_retries < 1 << 31:
        raise ValueError(f"{max_retries} retries")
    return RetryAsked(countdown, eta, max_retries)


def of_hosted_reply(tag: int, payload: bytes) -> Outcome:
    """The same for a call of an inline host, which can also say that it ended the call. Raises Garbage."""
    try:
        if tag == TIMED_OUT:
            return _timed_out.decode(payload)
        if tag == STOPPED:
            return Stopped(*_stopped.decode(payload))
    except UNREADABLE as error:
        raise Garbage(f"a reply that cannot be read: {error}") from None
    return of_reply(tag, payload)


def of_cause(cause: Cause, stop: StopReason | None, started: bool, end: Exit, stderr: str) -> Outcome:
    """For every cause but the limits, which need their times (`Deadlines.time_out`)."""
    if cause is Cause.STOPPED and stop is not None:
        return Stopped(stop, started)
    if cause is Cause.CLOSING:
        return Stopped(StopReason.SHUTDOWN, started)
    told = f"{stderr}\nkilled by the worker: {cause.value}".strip()
    return Crashed(end.exit_code, end.signal or "SIGKILL", told)


def unsendable(error: BaseException) -> Failed:
    """An entrypoint that cannot be pickled fails its call, and nothing else."""
    kinds = tuple(cut(f"{cls.__module__}.{cls.__qualname__}") for cls in type(error).__mro__)
    try:
        text, said = cut_inside("".join(traceback.format_exception(error))), str(error)
    except BaseException as worse:  # user code: __str__ and __notes__ of the error
        text, said = "", f"<its text could not be made: {type(worse).__name__}>"
    message = cut(f"the entrypoint cannot be sent to an isolate: {said}")
    return Failed(TaskError(type=kinds[0], message=message, traceback=text, retryable=False), kinds)


def unmeasured() -> Failed:
    """A memory limit that nobody could hold fails its call before it begins."""
    message = (
        "memory limit: /proc is mounted with hidepid and has hidden this isolate from its start on, so nobody can tell how much it holds. "
        "Mount /proc without hidepid, or with gid= of a group that this program is in; use a Python that everybody may read and that has "
        "no capabilities of its own (setcap); or give no memory limit."
    )
    kinds = tuple(f"builtins.{cls.__name__}" for cls in RuntimeError.__mro__)
    return Failed(TaskError(type=kinds[0], message=message, traceback="", retryable=False), kinds)

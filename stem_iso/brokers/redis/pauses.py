"""Pauses of queues and tasks, and the lines of paused tasks.

    pause   registry   its name, with a number ──> workers see `paused` and obey; of a queue nobody takes anything
    hold    registry   is it paused? with which number ──┐
            queue      from here on every end of this delivery leaves "free" in the outbox (as of `rate_limits`)
            line       park: it stands in line <─────────┘   a line that was opened with a higher number says: run it
            queue      defer: its lease is over, it is delayed, reason `paused`
    resume  registry   the name goes, an opening comes ──> line: opened, the first OPENED go to the head of their queue
    sweep   registry   openings that are not done ──> line: the next OPENED ── until it is empty ──> the opening goes

Rules
 1. The line of a paused task is the bucket of a limit, with room for one that the pause itself holds. So all that is true of a limit's line
    is true of this one: revoked, purged, its worker dead, called; and those who know nothing of pauses serve it by the same rules.
 2. Pauses and openings have numbers that grow, so that whoever is late neither closes what was opened nor opens what was closed again.
 3. What is called first stands before all others; what is called later, by sweeps and by the ends of the first, behind them.
 4. One who stands in line looks by himself after ten minutes. Where it is not paused any more, it runs.
"""

from __future__ import annotations

from stem_iso.brokers.base import Permit, Receipt, Verdict
from stem_iso.brokers.operations import Pauses
from stem_iso.brokers.redis.corrupt_records import DAMAGE, log_corrupt, text
from stem_iso.brokers.redis.driver.client import RedisClient, ScriptCall, ServerCommand
from stem_iso.brokers.redis.keys import REGISTRY, bucket_key, queue_key
from stem_iso.brokers.redis.rate_limits import LINE_OF_PAUSED, TAKEN, Cancel, HandOn, LimitPlace, deliver, put_aside, refused
from stem_iso.outcome import PAUSED

PAUSES, OPENINGS = f"{REGISTRY}:p", f"{REGISTRY}:po"


def paused(client: RedisClient) -> Pauses:
    queues: set[str] = set()
    tasks: set[str] = set()
    for name in client.command(REGISTRY, "HKEYS", PAUSES):
        try:
            (queues if name[:1] == b"q" else tasks).add(name[1:].decode())
        except DAMAGE:
            log_corrupt(f"the pause {text(name)}")
    return Pauses(frozenset(queues), frozenset(tasks))


def pause(client: RedisClient, name: str, task: bool) -> bool:
    return bool(client.call("pauses", REGISTRY, "pause", _field(name, task)))


def resume(client: RedisClient, name: str, task: bool) -> bool:
    was, number = client.call("pauses", REGISTRY, "resume", _field(name, task))
    if number:
        _open(client, name, number, first=True)
    return bool(was)


def _field(name: str, task: bool) -> str:
    return f"{'t' if task else 'q'}{name}"


def _open(client: RedisClient, name: str, number: bytes, first: bool) -> None:
    """The next of the line go."""
    bucket = LINE_OF_PAUSED + name
    calls = client.call("bucket", bucket_key(bucket), "open", number)
    if calls:
        deliver(client, bucket, calls, first)
    else:
        client.call("pauses", REGISTRY, "opened", _field(name, True), number)


def see_through(client: RedisClient) -> None:
    """Openings whose lines are not empty yet."""
    answer = client.command(REGISTRY, "HGETALL", OPENINGS)
    for name, number in zip(answer[::2], answer[1::2], strict=True):
        _open(client, text(name[1:]), number, first=False)


def hold(client: RedisClient, queue: str, receipt: Receipt, name: str, cancel: Cancel, hand_on: HandOn) -> Permit:
    """See the contract. `cancel` settles the delivery as `cancelled`; `hand_on` relays entries of the outbox."""
    token = (receipt.id, receipt.boot, receipt.sequence)
    asked = ServerCommand(REGISTRY, ("HGET", PAUSES, _field(name, True)))
    number, (left,) = client.run([asked, ScriptCall("lease_time_left", queue_key(queue), token)])
    if left is None:
        return Permit(Verdict.LOST)
    if number is None:
        return TAKEN
    bucket = LINE_OF_PAUSED + name
    found = client.call("acquire", queue_key(queue), *token, bucket)
    if found[0] != b"asked":
        return refused(found[0], cancel)
    _, asking, _, priority, entries = found
    hand_on([(queue, entries)])
    place = LimitPlace(bucket, queue, receipt.id, asking)
    runs, calls, look = client.call("bucket", bucket_key(bucket), "park", place.member, asking, 9 - priority, number)
    if runs:
        return TAKEN
    return put_aside(client, queue, receipt, place, look, None, PAUSED, calls, cancel)

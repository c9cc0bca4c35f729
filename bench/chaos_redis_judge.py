"""Whether the books of `bench.chaos_redis` add up: read from the ledger and, by redis-py alone, from the server. Imports no stem_iso.

    python -m bench.chaos_redis_judge FOLDER PORT        prints what it counted as JSON; exit code 1 and what is wrong, else

Laws
 1. Each accepted task has one status, in one queue, and it is terminal; each canvas as well. Nothing is left queued, leased or delayed.
 2. A success has its effect: an end in the ledger of its last attempt; a chain, group or chord that succeeded has the right result.
 3. An effect is doubled only where a lease was lost: of two starts of one attempt, the first one's isolate, core or launcher was killed in
    between. So a server that was away, for however long, doubles nothing. At most once (`acks_late=False`): one start.
 4. No more starts than attempts and redeliveries say.
 5. Dead letters are the failed tasks, each once, under both keys that hold them.
 6. Two unique tasks of a key, two tasks of a limit of one at a time, never run at once (unless a lease was lost: then it is counted).
 7. No process that a handler was or started lives.
 8. Each result that is kept stands in the list of its state, and nothing stands in that of those alive.
 9. No key is left but results, dead letters, the registry, and what has a short life of its own (LEFT).
"""

from __future__ import annotations

import json
import re
import struct
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import redis

STATES = {3: "succeeded", 4: "failed", 5: "cancelled"}
ENDED = frozenset(STATES.values())
HEAD = struct.Struct("<BdddH8s")
# What may be left. Results: statuses and groups, which expire. The rest: one key for each queue or bucket, whatever the number of tasks.
LEFT = [
    rb"si:\{[^}]*\}:s:.*",  # results
    rb"si:\{c/[^}]*\}:(tree|j|jc)",  # groups and canvases, as long as results
    rb"si:\{[^}]*\}:(x|xd)",  # dead letters
    rb"si:\{[^}]*\}:(on|a|g)",  # the outbox's counter; ended apart; the wake-up token
    rb"si:\{[^}]*\}:e:.*",  # rung for a waiter that died: a minute
    rb"si:\{[^}]*\}:i:[0-9a-f]{32}",  # what a boot was last answered, for when the answer was lost
    rb"si:\{[^}]*\}:q[345]",  # lists of what has ended, by state; what expired stands there until it is swept
    rb"si:\{[^}]*\}:(qp|q[cn]:.*)",  # where the sweeps are in them; counts of a minute, and nonces of those who add to them
    rb"si:\{b/[^}]*\}:(i|st)",  # a bucket's settings and last starts
    rb"si:\{/[a-z]+\}.*",  # registry, schedules, gossip
]
EXPIRING = [rb"si:\{[^}]*\}:s:.*", rb"si:\{[^}]*\}:(qp|q[cn]:.*)", rb"si:\{[^}]*\}:[ei]:.*", rb"si:\{c/[^}]*\}:(tree|j|jc)"]


class Line(NamedTuple):
    """Of the ledger."""

    word: str
    id: str
    name: str
    key: str
    attempt: int
    pid: int
    launcher: int
    at: float


class Kill(NamedTuple):
    who: str
    pid: int  # an isolate's, or the launcher of the core or of itself
    at: float


@dataclass(frozen=True)
class Status:
    id: str
    name: str
    queue: str
    state: str
    reason: str
    attempt: int
    redeliveries: int
    result: Any
    ends: float = 0.0  # until when it is shown; 0: a group

    def __str__(self) -> str:
        return f"{self.name} {self.id}: {self.state} ({self.reason}), attempt {self.attempt}, redelivered {self.redeliveries}"


class Books:
    def __init__(self, folder: Path, server: Any) -> None:
        self.folder, self.server = folder, server
        self.wrong: list[str] = []

    @cached_property
    def lines(self) -> list[Line]:
        found = []
        for text in (self.folder / "ledger").read_text().splitlines():
            word, id, name, key, attempt, pid, launcher, at = text.split()
            found.append(Line(word, id, name, key, int(attempt), int(pid), int(launcher), float(at)))
        return found

    @cached_property
    def kills(self) -> list[Kill]:
        return [Kill(who, int(pid), float(at)) for who, pid, at in map(str.split, (self.folder / "kills").read_text().splitlines())]

    @cached_property
    def accepted(self) -> list[list[str]]:
        return [line.split() for line in (self.folder / "accepted").read_text().splitlines()]

    @cached_property
    def keys(self) -> list[bytes]:
        return list(self.server.scan_iter("si:*", count=1000))

    @cached_property
    def statuses(self) -> dict[str, list[Status]]:
        found: dict[str, list[Status]] = defaultdict(list)
        for key in self.keys:
            if match := re.fullmatch(rb"si:\{([^}]*)\}:s:(.*)", key):
                queue, id = match[1].decode(), match[2].decode()
                if stored := status(id, queue, self.server.get(key)):
                    found[id].append(stored)
            elif match := re.fullmatch(rb"si:\{c/([^}]*)\}:j", key):
                id = match[1].decode()
                found[id].append(group(id, self.server.hgetall(key)))
        return found

    @cached_property
    def starts(self) -> dict[str, list[Line]]:
        found: dict[str, list[Line]] = defaultdict(list)
        for line in self.lines:
            if line.word == "start":
                found[line.id].append(line)
        return found

    def expect(self, holds: bool, otherwise: object) -> None:
        if not holds:
            self.wrong.append(str(otherwise))


def status(id: str, queue: str, data: bytes) -> Status | None:
    """None for a tombstone: a part of a canvas that was dropped with it."""
    state, ends, _, _, redeliveries, _ = HEAD.unpack_from(data)
    if not ends:
        return None
    _, _, head, reason, _, result, *_ = frames(data[HEAD.size :])
    envelope = msgspec.msgpack.decode(head) if head else {}
    value = msgspec.msgpack.decode(result) if result else None
    return Status(
        id, envelope.get("name", ""), queue, STATES[state], reason.decode(), envelope.get("attempt", 0), redeliveries, value, ends
    )


def group(id: str, fields: dict[bytes, bytes]) -> Status:
    result = fields.get(b"result")
    value = msgspec.msgpack.decode(result) if result else None
    return Status(id, "group", "", fields.get(b"state", b"open").decode(), fields.get(b"reason", b"").decode(), 0, 0, value)


def frames(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        found.append(data[at + 4 : end])
        at = end
    return found


def one_end_each(books: Books) -> None:
    for kind, id, expected in books.accepted:
        found = books.statuses.get(id, [])
        books.expect(len(found) == 1, f"{kind} {id}: {len(found)} statuses")
        for each in found:
            if kind != "task" and each.state == "succeeded":
                result = ",".join(map(str, sorted(each.result))) if isinstance(each.result, list) else str(each.result)
                books.expect(result == expected, f"{kind} {id}: its result is {result}, not {expected}")


def effects(books: Books) -> None:
    ends = {(line.id, line.attempt) for line in books.lines if line.word == "end"}
    for id, found in books.statuses.items():
        each, starts = found[0], books.starts.get(id, [])
        books.expect(len(found) == 1, f"{each}: in {[one.queue for one in found]}")
        books.expect(each.state in ENDED, each)
        books.expect(len(starts) <= each.attempt + 1 + each.redeliveries, f"{each}: started {len(starts)} times")
        if each.state == "succeeded" and each.name.startswith("chaos."):
            books.expect((id, each.attempt) in ends, f"{each}: no end of it in the ledger")
        books.expect(each.name != "chaos.once" or len(starts) <= 1, f"{each}: started {len(starts)} times, at most once was asked")
    for id in books.starts:
        books.expect(id in books.statuses, f"{id}: ran, and has no status")


def doubled(books: Books) -> Iterator[tuple[Line, Line]]:
    for starts in books.starts.values():
        for first, second in pairwise(starts):
            if first.attempt == second.attempt:
                yield first, second


def explained(books: Books) -> int:
    """How many were doubled; each needs a kill in between."""
    count = 0
    for first, second in doubled(books):
        count += 1
        lost = [kill for kill in books.kills if kill.pid in (first.pid, first.launcher) and first.at - 1 <= kill.at <= second.at]
        books.expect(bool(lost), f"{first.name} {first.id}: started by {first.pid} and again by {second.pid}, and nobody had been killed")
    return count


def dead_letters(books: Books) -> int:
    queues = {key[: -len(b":x")] for key in books.keys if key.endswith(b"}:x")}
    held: list[str] = []
    for queue in queues:
        letters = {id.decode() for id in books.server.hkeys(queue + b":x")}
        dated = {id.decode() for id in books.server.zrange(queue + b":xd", 0, -1)}
        books.expect(letters == dated, f"{queue.decode()}: {sorted(letters ^ dated)} are dead letters under one key alone")
        held += letters
    failed = {id for id, found in books.statuses.items() if found[0].state == "failed" and found[0].name.startswith("chaos.")}
    books.expect(set(held) == failed, f"dead letters and failed tasks differ by {sorted(set(held) ^ failed)}")
    books.expect(len(held) == len(set(held)), "a dead letter is there twice")
    return len(held)


def apart(books: Books) -> int:
    """Pairs that ran at once although a lock or a limit forbids it; only those whose lease was lost may."""
    spans: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for line in books.lines:
        if line.word == "end" and line.key != "-":
            began = next(s.at for s in books.starts[line.id] if s.pid == line.pid and s.attempt == line.attempt)
            spans[f"{line.name} {line.key}"].append((began, line.at, line.id))
    lost, count = {first.id for first, _ in doubled(books)}, 0
    for what, found in spans.items():
        found.sort()
        for (_, end, one), (began, _, two) in pairwise(found):
            if began < end and one != two:
                count += 1
                books.expect(bool({one, two} & lost), f"{what}: {one} and {two} ran at once")
    return count


def nobody_lives(books: Books) -> None:
    for line in books.lines:
        try:
            title = Path(f"/proc/{line.pid}/cmdline").read_bytes()
        except OSError:
            continue
        books.expect(b"sleep\x001000" not in title and b"chaos." not in title, f"{line.name} {line.id}: process {line.pid} is alive")


def listed(books: Books) -> None:
    now = books.server.time()[0] + 1
    for found in books.statuses.values():
        for each in found:
            number = next(number for number, state in STATES.items() if state == each.state) if each.state in ENDED else 0
            if number and each.ends > now:
                place = books.server.zscore(f"si:{{{each.queue}}}:q{number}", each.id)
                books.expect(place is not None, f"{each}: in no list")


def keys_left(books: Books) -> None:
    for key in books.keys:
        books.expect(any(re.fullmatch(pattern, key) for pattern in LEFT), f"left: {key.decode()} ({books.server.type(key).decode()})")
        if any(re.fullmatch(pattern, key) for pattern in EXPIRING):
            books.expect(books.server.ttl(key) != -1, f"{key.decode()} has no end")


def judge(folder: Path, server: Any) -> tuple[dict[str, Any], list[str]]:
    """What was counted, and what is wrong."""
    books = Books(folder, server)
    one_end_each(books)
    effects(books)
    counted = {"dead letters": dead_letters(books), "doubled": explained(books), "at once after a lost lease": apart(books)}
    nobody_lives(books)
    listed(books)
    keys_left(books)
    known = [found[0] for found in books.statuses.values()]
    return {
        "accepted": Counter(kind for kind, *_ in books.accepted),
        "tasks": len(known),
        "outcomes": Counter(f"{each.name} {each.state} {each.reason}".strip() for each in known),
        "redelivered": sum(1 for each in known if each.redeliveries),
        "starts": sum(map(len, books.starts.values())),
        **counted,
    }, books.wrong


def main() -> None:
    with redis.Redis(port=int(sys.argv[2])) as server:
        counted, wrong = judge(Path(sys.argv[1]), server)
    print(json.dumps(counted, indent=1))
    if wrong:
        sys.exit("\n".join([f"{len(wrong)} things are wrong:", *wrong[:50]]))


if __name__ == "__main__":
    main()

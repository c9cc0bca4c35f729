"""Commands to workers, their replies, and the list of who did what. All of it small, in the slot of the workers, and gone by itself.

send_command ──> kept for a minute, every worker wakes ── commands ──> worker ── reply ──> kept as long ── replies ──> who asked
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from stem_iso.brokers.operations import COMMAND_LIFE, MOST_ACTIONS, Action, Command, CommandReply
from stem_iso.brokers.redis.corrupt_records import DAMAGE, log_corrupt
from stem_iso.brokers.redis.driver.client import RedisClient
from stem_iso.brokers.redis.keys import WORKERS

LIFE = int(COMMAND_LIFE)
ACTIONS_LIFE = 366 * 86_400  # seconds after the last of them

T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode
_command = msgspec.msgpack.Decoder(Command)
_reply = msgspec.msgpack.Decoder(CommandReply)
_action = msgspec.msgpack.Decoder(Action)


def send(client: RedisClient, command: Command) -> None:
    if not command.at:
        command = msgspec.structs.replace(command, at=time.time())
    _call(client, "send", LIFE, command.id, _encode(command), client.channel)


def commands(client: RedisClient, worker_id: str, started_at: float) -> list[Command]:
    """The server is told how long ago the worker began, for its clock need not be the worker's."""
    age = repr(time.time() - started_at)
    found = _decoded(_call(client, "list", worker_id, age, LIFE), _command, "a command to the workers")
    return [each for each in found if each.worker_id in ("*", worker_id)]


def reply(client: RedisClient, command_id: str, answer: CommandReply) -> None:
    _call(client, "reply", LIFE, command_id, answer.worker_id, _encode(answer))


def replies(client: RedisClient, command_id: str) -> list[CommandReply]:
    found = _decoded(_call(client, "replies", command_id), _reply, f"a reply to command {command_id}")
    return sorted(found, key=lambda each: each.worker_id)


def log_action(client: RedisClient, action: Action) -> None:
    _call(client, "log", MOST_ACTIONS, ACTIONS_LIFE, _encode(action))


def actions(client: RedisClient, limit: int) -> list[Action]:
    return list(_decoded(_call(client, "actions", limit), _action, "an action")) if limit > 0 else []


def _call(client: RedisClient, verb: str, *args: str | bytes | int) -> Any:
    return client.call("command", WORKERS, verb, *args)


def _decoded(bodies: Sequence[bytes], decoder: msgspec.msgpack.Decoder[T], what: str) -> Iterator[T]:
    for body in bodies:
        try:
            yield decoder.decode(body)
        except DAMAGE:
            log_corrupt(what)

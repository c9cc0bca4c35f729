"""Commands to workers and their replies: small tables, kept for a minute.

send ──> `command` ── wake-up ──> every worker: commands ──> does it, or refuses ── reply ──> `reply` ──> who sent it
"""

from __future__ import annotations

from typing import Any

import msgspec

from stem_iso.brokers.operations import COMMAND_LIFE, Command, CommandReply
from stem_iso.brokers.sqlite.notifications import Topic
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.values import unpacked

KEPT = 1000  # commands, and replies of each as many as there are workers

_command = msgspec.msgpack.Decoder(Command)
_reply = msgspec.msgpack.Decoder(CommandReply)


def send(turn: Transaction, command: Command) -> None:
    sent = command if command.at else msgspec.structs.replace(command, at=turn.now)
    values: tuple[Any, ...] = (sent.id, sent.worker_id, sent.at, turn.now, msgspec.msgpack.encode(sent))
    turn.run("INSERT OR IGNORE INTO command (id, worker, at, kept, body) VALUES (?, ?, ?, ?, ?)", values)
    turn.run("DELETE FROM command WHERE number <= (SELECT max(number) FROM command) - ?", (KEPT,))
    turn.topics.add(Topic.WORK)


_FOR = """
SELECT body FROM command WHERE worker IN (?, '*') AND at >= ? AND kept > ?
  AND NOT EXISTS (SELECT 1 FROM reply WHERE reply.command = command.id AND reply.worker = ?) ORDER BY number"""


def commands(turn: Transaction, worker_id: str, started_at: float) -> list[Command]:
    rows = turn.all(_FOR, (worker_id, started_at, turn.now - COMMAND_LIFE, worker_id))
    return [command for (body,) in rows if (command := unpacked(_command, body)) is not None]


def reply(turn: Transaction, command_id: str, answer: CommandReply) -> None:
    turn.run("INSERT OR REPLACE INTO reply VALUES (?, ?, ?, ?)", (command_id, answer.worker_id, turn.now, msgspec.msgpack.encode(answer)))


def replies(turn: Transaction, command_id: str) -> list[CommandReply]:
    rows = turn.all("SELECT body FROM reply WHERE command = ? ORDER BY worker", (command_id,))
    return [answer for (body,) in rows if (answer := unpacked(_reply, body)) is not None]


STALE = (
    "SELECT 1 FROM command WHERE kept <= ? OR kept >= '' LIMIT 1",
    "SELECT 1 FROM reply WHERE at <= ? OR at >= '' LIMIT 1",
)


def sweep(turn: Transaction) -> int:
    """A reply is kept as long as a command, from when it came."""
    before = (turn.now - COMMAND_LIFE,)
    swept = turn.run("DELETE FROM command WHERE kept <= ? OR kept >= ''", before).rowcount
    return swept + turn.run("DELETE FROM reply WHERE at <= ? OR at >= ''", before).rowcount

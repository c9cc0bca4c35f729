"""Actions: who did what, when. The last MOST_ACTIONS are kept."""

from __future__ import annotations

import msgspec

from stem_iso.brokers.operations import MOST_ACTIONS, Action
from stem_iso.brokers.sqlite.transaction import Transaction
from stem_iso.brokers.sqlite.values import unpacked

_decoder = msgspec.msgpack.Decoder(Action)


def log(turn: Transaction, action: Action) -> None:
    turn.run("INSERT INTO action (body) VALUES (?)", (msgspec.msgpack.encode(action),))
    turn.run("DELETE FROM action WHERE number <= (SELECT max(number) FROM action) - ?", (MOST_ACTIONS,))


def actions(turn: Transaction, limit: int) -> list[Action]:
    rows = turn.all("SELECT body FROM action ORDER BY number DESC LIMIT ?", (max(0, limit),))
    return [action for (body,) in rows if (action := unpacked(_decoder, body)) is not None]

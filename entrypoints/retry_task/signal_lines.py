"""A signal as one line of JSON. What a line is about is written in one step, so lines of several processes do not mix."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import msgspec

from stem_iso.signals import Signal, TaskPrerunSignal, TaskRetrySignal


class SignalWriter:
    """Remembers when attempts are due, to say of each how late it began. Used by the one thread that gets a worker's signals."""

    def __init__(self) -> None:
        self._due: dict[tuple[str, int], float] = {}  # by task id and attempt; wall clock

    def on_signal(self, value: Signal) -> None:
        line: dict[str, Any] = msgspec.to_builtins(value)
        if error := line.get("error"):
            line["error"] = {"type": error["type"], "message": error["message"]}  # a traceback is no line
        match value:
            case TaskRetrySignal():
                self._due[value.task_id, value.next_attempt] = value.due
            case TaskPrerunSignal():
                due = self._due.pop((value.task_id, value.attempt), None)
                if due is not None:
                    line |= {"due": due, "late": round(value.at - due, 4)}
        write_line(line)


def write_line(line: dict[str, Any]) -> None:
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), json.dumps({name: each for name, each in line.items() if each is not None}).encode() + b"\n")

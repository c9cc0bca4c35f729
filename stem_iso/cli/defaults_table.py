"""The table of defaults, made from where each of them lives: `python -m stem_iso.cli.defaults_table` prints it,
a test compares the README's.

WorkerConfig ─────┐
BrokerOptions ────┼──> rows ──> a table in Markdown
Boot, Finish ─────┘
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from stem_iso.brokers.base import BrokerOptions
from stem_iso.config import DEFAULT_BROKER, SETTINGS, Setting, WorkerConfig
from stem_iso.isolate.interfaces import Boot
from stem_iso.task.policy import RESULT_TTL

# What no value can say.
IN_WORDS = {
    "concurrency": "the allowed cores",
    "queues": "every queue that the tasks declare",
    "app": "-",
    "secret_env": "none",
    "include": "none",
    "log_file": "stderr",
    "metrics_port": "none",
}
BYTES = frozenset({"max_payload_bytes", "max_result_bytes"})
COUNTS = frozenset({"spares", "max_redeliveries"})
MEANINGS = {
    "block_time": "the longest block of an idle fetch",
    "claim_interval": "how often expired leases are sought",
    "default_visibility_timeout": "how long a delivery is leased; renewed while its task runs",
    "max_redeliveries": "how often a lost lease is given to another before the task is dead-lettered",
    "dead_letter_ttl": "how long dead letters are kept",
    "max_payload_bytes": "the largest arguments",
    "max_result_bytes": "the largest result",
    "sync": "SQLite: `full` survives a power loss to the last commit",
}
UNITS = (("day", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def duration(value: float) -> str:
    """In the largest unit that gives a whole number."""
    name, length = next(((name, length) for name, length in UNITS if value and value % length == 0), UNITS[-1])
    count = f"{value / length:g}"
    return f"{count} {name}" + ("s" if name == "day" and count != "1" else "")


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Name, default, where it is said, what it means."""
    config = WorkerConfig()
    for setting in SETTINGS:
        where = ", ".join(f"`{flag}`" for flag in setting.flags) + f", `{setting.variable}`"
        yield setting.name, _of_worker(setting, config), where, setting.meaning
    for field in fields(BrokerOptions):
        yield field.name, _written(field.name, field.default), "`Stem(...)`, `?...` of the URL", MEANINGS[field.name]
    yield "result_ttl", duration(RESULT_TTL), "`@app.task(...)`, `using(...)`", "how long a result is kept"
    yield "boot", duration(Boot(target="").time_limit), "-", "how long an isolate may take to start; never charged to a task"


def _of_worker(setting: Setting, config: WorkerConfig) -> str:
    if setting.name == "broker":
        return f"the application's; else `{DEFAULT_BROKER}`"
    return IN_WORDS.get(setting.name) or _written(setting.name, getattr(config, setting.name))


def _written(name: str, value: object) -> str:
    if value is None:
        return "no limit"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str):
        return f"`{value}`"
    if not isinstance(value, int | float) or name in COUNTS:
        return str(value)
    return f"{value / 2**20:g} MiB" if name in BYTES else duration(value)


def markdown() -> str:
    lines = ["| | default | where | |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {default} | {where} | {meaning} |" for name, default, where, meaning in rows()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())

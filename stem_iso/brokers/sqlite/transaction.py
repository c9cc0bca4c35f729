"""One transaction as its work sees it: statements, one `now` for all of them, and the topics to notify once it is committed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from stem_iso.brokers.sqlite.clock import StoreClock
from stem_iso.brokers.sqlite.connection import Connection, Row
from stem_iso.brokers.sqlite.notifications import Listener, Topic

T = TypeVar("T")

# Rows per statement: SQLite takes 32,766 variables, and 500 rows have all of the gain there is.
CHUNK = 500


class Transaction:
    """`now` is wall clock, `lease_now` the clock of leases; both are read under the writer's lock, so they grow."""

    __slots__ = ("all", "lease_now", "now", "one", "run", "topics")

    def __init__(self, connection: Connection, clock: StoreClock) -> None:
        self.all = connection.all
        self.one = connection.one
        self.run = connection.execute
        self.now = clock.wall()
        self.lease_now = clock.lease()
        self.topics: set[Topic] = set()

    def of_rows(self, sql: str, rows: Sequence[Sequence[Any]]) -> list[Row]:
        """Run `sql` with `{rows}` standing for a VALUES list of all rows, in as few statements as there may be."""
        return [row for statement, values in _statements(sql, rows) for row in self.all(statement, values)]

    def count_of_rows(self, sql: str, rows: Sequence[Sequence[Any]]) -> int:
        """As `of_rows`; how many rows of the table were written."""
        return sum(self.run(statement, values).rowcount for statement, values in _statements(sql, rows))

    def is_view(self) -> bool:
        """Whether a file of an earlier version is looked at: it lacks what later versions added, indexes too."""
        return bool(self.one("SELECT 1 FROM temp.sqlite_master WHERE name = 'task'"))

    def of_keys(self, sql: str, keys: Sequence[Any], *before: Any) -> list[Row]:
        """Run `sql` with `{keys}` standing for a list of them; `before` are the values of the variables in front of it."""
        answers: list[Row] = []
        for start in range(0, len(keys), CHUNK):
            part = keys[start : start + CHUNK]
            answers += self.all(_with_keys(sql, len(part)), (*before, *part))
        return answers


def _statements(sql: str, rows: Sequence[Sequence[Any]]) -> Iterator[tuple[str, Sequence[Any]]]:
    """One per CHUNK, each with its values."""
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        values = part[0] if len(part) == 1 else [value for row in part for value in row]
        yield _with_values(sql, len(part), len(part[0])), values


@lru_cache(maxsize=2048)
def _with_values(sql: str, rows: int, width: int) -> str:
    one = f"({','.join('?' * width)})"
    return sql.replace("{rows}", ",".join([one] * rows))


@lru_cache(maxsize=2048)
def _with_keys(sql: str, count: int) -> str:
    return sql.replace("{keys}", ",".join("?" * count))


class Database(Protocol):
    """Who runs transactions."""

    url: str

    def write(self, work: Callable[[Transaction], T], *, single: bool = False) -> T:
        """All of `work` in one transaction, or none; then wakes others. `single`: it runs one statement at most, which is a transaction by
        itself, so that BEGIN and COMMIT are spared. Raises BrokerUnavailable."""

    def read(self, work: Callable[[Transaction], T], *, single: bool = False) -> T:
        """One consistent view of the store; never waits for a writer. `single`: each of its statements may have a view of its own."""

    def version(self) -> int:
        """Another number than before where another connection has committed."""

    def listener(self, topic: Topic) -> Listener: ...

    def done_listener(self) -> Listener:
        """For `wait`: a listener that is kept, since closing an inotify descriptor takes milliseconds."""

    def shrink(self) -> None:
        """Give some free pages back to the file system."""

    def migrate(self) -> tuple[int, int] | None:
        """Bring the store to this version's schema: the version before and after; None where there is no store yet, and none is made."""

    def twin(self) -> Database:
        """Another one on the same store."""

    def close(self) -> None: ...

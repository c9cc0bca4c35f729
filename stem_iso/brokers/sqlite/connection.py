"""One SQLite connection: the only place where sqlite3 is imported, and only when a connection is wanted (a producer that merely declares
tasks pays nothing).

A file is opened and brought to our schema under the lock file, since `journal_mode=WAL` answers "database is locked" at once, whatever the
time-out. What sqlite3 raises leaves this module as `BrokerUnavailable`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stem_iso.brokers.sqlite import schema
from stem_iso.brokers.sqlite.clock import StoreClock
from stem_iso.errors import BrokerUnavailable

if TYPE_CHECKING:
    import sqlite3

Row = tuple[Any, ...]
T = TypeVar("T")

# Seconds that SQLite itself waits at once. Our writers do not meet there; what does is a recovery after a crash, a worker of version 0.1,
# or another program on the file (VACUUM, a backup, a browser with an open transaction). Where it runs out, `Busy` is asked for again.
BUSY = 0.4

OLDEST = (3, 35)  # RETURNING
SQLITE_BUSY, SQLITE_FULL = 5, 13
NO_UTF8 = "Could not decode to UTF-8"  # how sqlite3 itself says so; it has no code

PRAGMAS = """
PRAGMA journal_size_limit = 4194304;
PRAGMA wal_autocheckpoint = 1000;
PRAGMA foreign_keys = OFF;
"""


class Busy(BrokerUnavailable):
    """Another program holds SQLite's own lock. Nothing was read or written."""


class UnreadableText(BrokerUnavailable):
    """A text that was asked for is no UTF-8."""


class Full(BrokerUnavailable):
    """The disk is full. The transaction was undone, and reading goes on."""


class Connection:
    """A connection in autocommit mode; transactions are spelled out."""

    def __init__(self, target: str) -> None:
        import sqlite3

        if sqlite3.sqlite_version_info < OLDEST:
            raise BrokerUnavailable(
                f"sqlite:// needs SQLite {'.'.join(map(str, OLDEST))} or later, this Python has {sqlite3.sqlite_version}"
            )
        self._error = sqlite3.Error
        self.target = target
        with self:
            # Threads: our own lock orders them. 512 statements: batches differ in the number of their rows.
            self._raw: sqlite3.Connection = sqlite3.connect(
                target, timeout=BUSY, isolation_level=None, check_same_thread=False, cached_statements=512
            )
            self.read_any_text(True)
            self.execute = self._raw.execute

    # -- the seam: what sqlite3 raises becomes an error of ours -------------------------------------------------------------------

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, self._error):
            raise self._ours(error) from error

    def _ours(self, error: BaseException) -> BrokerUnavailable:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if str(error).startswith(NO_UTF8):
            return UnreadableText(f"{self.target}: {error}")
        if code == SQLITE_BUSY:
            return Busy(f"{self.target}: {error}: another program writes to it (a VACUUM, a backup, a shell with an open transaction?)")
        return (Full if code == SQLITE_FULL else BrokerUnavailable)(f"{self.target}: {error}")

    # -- use --------------------------------------------------------------------------------------------------------------------

    def all(self, sql: str, values: Any = ()) -> list[Row]:
        return self.execute(sql, values).fetchall()

    def one(self, sql: str, values: Any = ()) -> Any:
        """The first column of the first row."""
        rows = self.execute(sql, values).fetchall()
        return rows[0][0] if rows else None

    def script(self, sql: str) -> None:
        """Runs every statement to its end; `execute` would stop `incremental_vacuum` after one page."""
        self._raw.executescript(sql)

    @property
    def in_transaction(self) -> bool:
        return self._raw.in_transaction

    def transact(self, begin: str, work: Callable[[], T], deadline: float = 0.0) -> T:
        """All of `work`, or nothing of it, whatever ends it. Whoever holds SQLite's own lock is waited for until `deadline` (monotonic)."""
        while True:
            try:
                self.execute(begin)
                break
            except self._error as error:
                ours = self._ours(error)
                if not isinstance(ours, Busy) or time.monotonic() >= deadline:
                    raise ours from error
        try:
            try:
                answer = work()
                self.execute("COMMIT")
                return answer
            finally:
                if self._raw.in_transaction:  # a full disk has rolled back by itself already
                    self.execute("ROLLBACK")
        except self._error as error:
            ours = self._ours(error)
            if not isinstance(ours, UnreadableText) or self._raw.text_factory is _text:
                raise ours from error
        # Undone, and done anew by a connection that reads any text from now on. Not from the first: that costs a tenth of a task.
        self.read_any_text(True)
        return self.transact(begin, work, deadline)

    def single(self, work: Callable[[], T], deadline: float = 0.0) -> T:
        """As `transact`, for work of statements each of which is a transaction by itself, and that reads no text."""
        while True:
            try:
                return work()
            except self._error as error:
                ours = self._ours(error)
                if not isinstance(ours, Busy) or time.monotonic() >= deadline:
                    raise ours from error

    def read_any_text(self, wanted: bool) -> None:
        """What is no UTF-8 is to cost the row that it stands in (`values`), not the whole answer."""
        self._raw.text_factory = _text if wanted else str

    def close(self) -> None:
        with self:
            self._raw.close()


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


def prepare(connection: Connection, clock: StoreClock, sync: str, *, file: bool) -> None:
    """Pragmas, schema, and the truth about leases of an earlier boot. For a file: under its lock."""
    with connection:
        _look_once(connection, clock)  # a file that is not ours is refused before anything is changed in it
        if file:
            if not connection.one("PRAGMA user_version"):
                # First: it cannot be changed once there is a page. Else not at all: it writes, which a full disk may have no room for.
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            if connection.one("PRAGMA journal_mode = WAL") != "wal":
                raise BrokerUnavailable(
                    f"{connection.target}: this file system cannot share memory between processes (no WAL); use another"
                )
        connection.script(f"PRAGMA synchronous = {'FULL' if sync == 'full' else 'NORMAL'};" + PRAGMAS)
        if not _look_once(connection, clock)[1]:
            connection.transact("BEGIN IMMEDIATE", lambda: _bring_up(connection, clock))
        connection.read_any_text(False)


def _look_once(connection: Connection, clock: StoreClock) -> tuple[int, bool]:
    """The schema of the file, and whether it is this one's, of this machine. Of one instant: another process may be making the file. Raises
    BrokerUnavailable for a file that is not ours."""
    return connection.transact("BEGIN", lambda: _look(connection, clock))


def _look(connection: Connection, clock: StoreClock) -> tuple[int, bool]:
    version, application = _version(connection), connection.one("PRAGMA application_id")
    ours = application == schema.APPLICATION
    if not ours and (version or application or connection.one("SELECT count(*) FROM sqlite_master")):
        raise BrokerUnavailable(f"{connection.target} is a database of another program; give the queue a file of its own")
    if version > schema.VERSION:
        raise BrokerUnavailable(
            f"{connection.target} was written by a newer stem_iso (schema {version}, this one knows {schema.VERSION}); upgrade it here"
        )
    if version < 0 or (ours and not version):
        raise BrokerUnavailable(f"{connection.target} says that its schema is {version}, which there is not: it is damaged; restore a copy")
    current = version == schema.VERSION and connection.one("SELECT value FROM fact WHERE name = 'machine'") == clock.machine()
    return version, bool(current)


def _version(connection: Connection) -> int:
    """The larger of what older processes see and what `fact` says. Where that is lost, or cannot be read, the file has the tables of the
    first version that wrote it there, or has not."""
    shown: int = connection.one("PRAGMA user_version")
    if shown != schema.SHOWN or not connection.one(_HAS_TABLE, ("fact",)):
        return shown
    told = connection.one("SELECT value FROM main.fact WHERE name = 'schema'")
    if isinstance(told, str) and told.isdecimal() and len(told) < 10:
        return max(shown, int(told))
    return schema.SHOWN + 1 if connection.one(_HAS_TABLE, ("action",)) else shown


_HAS_TABLE = "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = ?"


def version_of(connection: Connection, clock: StoreClock) -> int:
    """Of the schema of its file; 0 is an empty one. Raises BrokerUnavailable for a file that is not ours."""
    with connection:
        return _look_once(connection, clock)[0]


def make_view(connection: Connection, version: int) -> None:
    """Let the connection read a file of an earlier version as one of this version, and write nothing.

    What the file lacks is made in the connection's own temporary database, whose names go before those of the file. Raises
    BrokerUnavailable where that cannot be.
    """
    with connection:
        connection.execute("PRAGMA temp_store = MEMORY")
        try:
            for statement in schema.overlay(version):
                connection.execute(statement)
        except NotImplementedError:
            raise BrokerUnavailable(f"{connection.target} is of an earlier version (schema {version}): run `stem-iso migrate`") from None
        connection.execute("PRAGMA query_only = ON")


def _bring_up(connection: Connection, clock: StoreClock) -> None:
    """All that is missing. Asked again in the transaction: another may have done it meanwhile."""
    version, current = _look(connection, clock)
    if current:
        return
    if not version:
        _run(connection, schema.TABLES)
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION}")
    for step in range(max(1, version) + 1, schema.VERSION + 1):
        _run(connection, schema.ADDED[step])
    connection.execute(f"PRAGMA user_version = {schema.SHOWN}")
    connection.execute(schema.WRITE_FACT, ("schema", str(schema.VERSION)))
    if version < 3:  # what has come before is not counted (`counts`)
        connection.execute(schema.WRITE_FACT, ("counted", str(connection.one("SELECT max(seq) FROM task") or 0)))
    if connection.one("SELECT value FROM fact WHERE name = 'machine'") != clock.machine():
        _new_boot(connection, clock)


def _run(connection: Connection, statements: str) -> None:
    # One by one: `executescript` would commit first.
    for statement in schema.statements(statements):
        connection.execute(statement)


def _new_boot(connection: Connection, clock: StoreClock) -> None:
    offset = clock.wall() - clock.lease()
    connection.execute("UPDATE start SET at = at - ? + (SELECT offset FROM bucket WHERE bucket.number = start.bucket)", (offset,))
    connection.execute("UPDATE bucket SET until = until - ? + offset, offset = ?", (offset, offset))
    connection.execute("UPDATE task SET at = 0 WHERE state = 2")
    connection.execute(schema.WRITE_FACT, ("machine", clock.machine()))


NETWORKS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "lustre", "afs"})


def network_of(folder: Path) -> str | None:
    """The type of the network file system that holds `folder`, None where it is a local one (or nobody can tell)."""
    try:
        device = folder.stat().st_dev
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    number = f"{device >> 8 & 0xFFF}:{device & 0xFF | device >> 12 & 0xFFF00}"
    kinds = [line.partition(" - ")[2].split()[0] for line in lines if line.split()[2] == number]
    return next((kind for kind in kinds if kind in NETWORKS), None)

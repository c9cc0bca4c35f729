"""The tables, and how a file becomes one of ours.

`task.at` has one meaning per state: due (DELAYED, wall clock), end of the lease (LEASED, boot time), expiry of the status (terminal, wall
clock). Four partial indexes, each the answer to one question: what is next in this queue, what comes due in it, which lease ran out, which
status has expired. Two more, of rows with limits alone: who holds a bucket, who waits at it and in which order. A row that is WAITING is a
part of a canvas that others come before; the row of a group never has another state until it ends, and is written only then: what is
counted in it at every end of a member is in `tally`, for a row may bear a tree of megabytes. `lock`, `dead`, `event`, `listener`,
`worker` are small beside it.

A file of an earlier version is brought to this one by `ADDED`, one step per version; a new file is `TABLES` and all steps. Nothing is ever
taken away or given another meaning, so a step is as safe as its statements are few. For the same reason a file of an earlier version can be
read without being changed: columns and tables that it lacks are empty (`overlay`).

The version stands in two places. A process refuses a file whose `PRAGMA user_version` is above its own, and a deployment lets older ones go
on beside newer ones; so `user_version` stays at SHOWN, whose tables every later step leaves as they are, and the true version is in
`fact`, name `schema`. It is the larger of the two. An older process does not look into `fact`, writes no column of a later step, and so
leaves each at its default.

The list of tasks goes by position: `seq`, the order of arrival. Whatever puts a task in line anew gives its row a new `seq`, and writes the
one by which it was first known to `listed`. A new `seq` is larger than all others, so it is larger than every `listed` too, and no
two tasks have one position. Two more partial indexes are for the list alone: `task_listed`, and `task_state`, which has all by state but
what is ready in its first attempt, which `task_ready` has in that order by queue and rank, and what runs, which is little.

The file remembers the machine's boot that its leases were written in: whoever opens it under another one sets all of them to "ran out".
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

WAITING, READY, DELAYED, LEASED, SUCCEEDED, FAILED, CANCELLED = range(-1, 6)

VERSION, SHOWN = 3, 2
APPLICATION = 0x5354454D  # "STEM", so that a database of something else is refused instead of filled

TABLES = """
CREATE TABLE task (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    queue TEXT NOT NULL,
    rank INTEGER NOT NULL,           -- 9 - priority
    state INTEGER NOT NULL,
    at REAL,
    run INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    redeliveries INTEGER NOT NULL DEFAULT 0,
    boot TEXT,                       -- with `sequence`: the token of the lease
    sequence INTEGER,
    marked INTEGER NOT NULL DEFAULT 0,
    revoked INTEGER NOT NULL DEFAULT 0,   -- 1: let it end, 2: terminate
    forgotten INTEGER NOT NULL DEFAULT 0,
    visibility REAL,                 -- NULL: the broker's default
    ttl REAL,                        -- of the status, where the broker itself ends the task, NULL means the default
    lock TEXT,
    parent TEXT,
    root TEXT,
    enqueued REAL,
    started REAL,
    finished REAL,
    reason TEXT,
    error BLOB,
    progress BLOB,
    meta BLOB,                       -- NULL: empty
    result BLOB,
    body BLOB                        -- NULL: a group, or ended by an older worker
);
CREATE INDEX task_ready ON task (queue, rank, seq) WHERE state = 0;
CREATE INDEX task_delayed ON task (queue, at) WHERE state = 1;
CREATE INDEX task_leased ON task (at) WHERE state = 2;
CREATE INDEX task_ended ON task (at) WHERE state > 2;
CREATE INDEX task_ordered ON task (boot) WHERE revoked > 0;
CREATE TABLE lock (key TEXT PRIMARY KEY, id TEXT NOT NULL, until REAL) WITHOUT ROWID;
CREATE INDEX lock_until ON lock (until) WHERE until IS NOT NULL;
CREATE TABLE dead (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    queue TEXT NOT NULL,
    reason TEXT NOT NULL,
    run INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    died REAL NOT NULL,
    lock TEXT,
    error BLOB,
    body BLOB
);
CREATE INDEX dead_queue ON dead (queue);
CREATE INDEX dead_died ON dead (died);
CREATE TABLE event (number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, body BLOB NOT NULL);
CREATE TABLE listener (id TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE worker (id TEXT PRIMARY KEY, boot TEXT NOT NULL, seen REAL NOT NULL, info BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

# What each version added to the one before it.
ADDED = {
    2: """
ALTER TABLE task ADD COLUMN canvas TEXT;       -- the id of the canvas that this is a part of
ALTER TABLE task ADD COLUMN follows BLOB;      -- what its end moves (`Then`)
ALTER TABLE task ADD COLUMN joined TEXT;       -- the group that counts it, and its place there
ALTER TABLE task ADD COLUMN place INTEGER;
ALTER TABLE task ADD COLUMN size INTEGER;      -- of a group: how many members it has
CREATE INDEX task_canvas ON task (canvas) WHERE canvas IS NOT NULL;
CREATE INDEX task_joined ON task (joined, place) WHERE joined IS NOT NULL;
ALTER TABLE task ADD COLUMN slot TEXT;
ALTER TABLE task ADD COLUMN waits TEXT;
ALTER TABLE task ADD COLUMN tree BLOB;         -- what was composed, in the row whose id is the canvas's: megabytes, hence the last column
CREATE INDEX task_slot ON task (slot) WHERE slot IS NOT NULL;
CREATE INDEX task_waits ON task (waits, state, rank, seq) WHERE waits IS NOT NULL;
CREATE TABLE bucket (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    count INTEGER NOT NULL,          -- 0: no rate
    period REAL NOT NULL,
    most INTEGER,                    -- at once, NULL: no limit
    starts INTEGER NOT NULL DEFAULT 0,
    parked REAL NOT NULL DEFAULT 0,
    until REAL NOT NULL,             -- boot time: its starts say nothing any more
    offset REAL NOT NULL             -- wall clock - boot time, to carry its starts over a reboot
);
CREATE INDEX bucket_until ON bucket (until);
CREATE TABLE start (bucket INTEGER NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (bucket, number)) WITHOUT ROWID;
CREATE TABLE tally (id TEXT PRIMARY KEY, missing INTEGER NOT NULL) WITHOUT ROWID;  -- of a group: members that have not ended
CREATE TABLE apart (
    number INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    queue TEXT NOT NULL,
    run INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    state INTEGER NOT NULL,
    reason TEXT NOT NULL,
    error BLOB
);
CREATE TABLE schedule (
    name TEXT PRIMARY KEY,
    revision TEXT NOT NULL,
    body BLOB NOT NULL,
    due REAL NOT NULL,
    owner TEXT NOT NULL,
    paused INTEGER NOT NULL DEFAULT 0,
    fired REAL
) WITHOUT ROWID;
""",
    3: """
ALTER TABLE task ADD COLUMN listed INTEGER;    -- the `seq` by which it was first known, NULL: this one
CREATE INDEX task_listed ON task (listed) WHERE listed IS NOT NULL;
CREATE INDEX task_state ON task (state, seq) WHERE state <> 2 AND (state <> 0 OR attempt > 0);
CREATE TABLE counts (
    minute INTEGER NOT NULL,         -- wall clock // 60
    queue TEXT NOT NULL,
    name TEXT NOT NULL,
    enqueued INTEGER NOT NULL DEFAULT 0,
    body BLOB,                       -- all that workers count
    PRIMARY KEY (minute, queue, name)
) WITHOUT ROWID;
CREATE TABLE used (queue TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;     -- when anything was last counted of it, to the minute
CREATE TABLE pause (task INTEGER NOT NULL, name TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (task, name)) WITHOUT ROWID;
CREATE TABLE command (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    worker TEXT NOT NULL,            -- "*": all
    at REAL NOT NULL,
    kept REAL NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE reply (command TEXT NOT NULL, worker TEXT NOT NULL, at REAL NOT NULL, body BLOB NOT NULL, PRIMARY KEY (command, worker))
    WITHOUT ROWID;
CREATE TABLE action (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
""",
}


WRITE_FACT = "INSERT INTO fact VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"


def statements(text: str) -> Iterator[str]:
    for statement in text.split(";"):
        if statement.strip():
            yield statement


# -- a file of an earlier version, read as one of this version -------------------------------------------------------------------------

COMMENT = re.compile(r"--.*")
COLUMN = re.compile(r"ALTER TABLE (\w+) ADD COLUMN (\w+) \w+(?: NOT NULL DEFAULT (\S+))?$")
TABLE = re.compile(r"CREATE TABLE (\w+)")
INDEX = re.compile(r"CREATE (UNIQUE )?INDEX ")


def overlay(version: int) -> list[str]:
    """Statements that make what a file of this version lacks, in the temporary database of a connection.

    Raises NotImplementedError where a step did more than to add empty columns and tables.
    """
    made: list[str] = []
    new: set[str] = set()
    columns: dict[str, list[str]] = defaultdict(list)
    texts = [TABLES] if version == 0 else []  # 0: an empty file
    texts += [ADDED[step] for step in range(max(1, version) + 1, VERSION + 1)]
    for statement in statements(COMMENT.sub("", ";".join(texts))):
        wanted = " ".join(statement.split())
        if column := COLUMN.match(wanted):
            columns[column[1]].append(f"{column[3] or 'NULL'} AS {column[2]}")
        elif table := TABLE.match(wanted):
            new.add(table[1])
            made.append(wanted.replace("CREATE TABLE", "CREATE TEMP TABLE IF NOT EXISTS", 1))
        elif not INDEX.match(wanted):
            raise NotImplementedError(wanted)
    for name, added in columns.items():
        if name in new:  # it is empty, so the types of its columns say nothing
            made += [f"ALTER TABLE temp.{name} ADD COLUMN {each.partition(' AS ')[2]}" for each in added]
        else:
            made.append(f"CREATE TEMP VIEW IF NOT EXISTS {name} AS SELECT *, {', '.join(added)} FROM main.{name}")
    return made

"""The embedded broker: one SQLite file for many processes, or one in-memory database for the threads of one process.

    publish ── INSERT ──> READY (0) ──┬── lease ──> LEASED (2) ── settle ──> SUCCEEDED (3) · FAILED (4) · CANCELLED (5) ── sweep ──> gone
                          DELAYED (1) ┘                │  ^                                     │
                             ^                         │  └── renew, extend, mark, note         └─> `dead`, one row per failed task
                             └──── retry, give back, reclaim, replay

One row per task, updated in place from birth to expiry: nothing is copied between tables, so nothing can be in two places or in none. Four
partial indexes hold exactly the rows that one question asks for, and their conditions are written literally in every statement, because
SQLite uses a partial index only where it can prove the condition from the text.

  broker       the facade: one call of the contract, one transaction; wakes others after the commit
  publish · lease · settle · revoke · unique · dead_letters · status · schedules · workers · expire     what a transaction does
  canvas · end_notices     tasks that follow one another; ends that no worker has seen
  task_list · edit · counts · queue_states · pauses · commands · actions     what operators ask for
  acquire · rate_limits     limits of tasks: the question and its answer; what is counted, and the line that waits
  rows · values · corrupt_rows     a row of `task` as values, and its end; a column as a value of its type; rows that cannot be read
  transaction · database · in_memory     one transaction; who runs it: a file under a lock, or the one connection of a `MemoryStore`
  connection · schema     the only import of sqlite3, and pragmas; the tables
  notifications     wake-ups after a commit
  work_watch · result_watch · event_log     who waits: a worker for work, a producer for results, anybody for events
  lock_file · fork_safety · clock     the writer's turn, and files beside a database; what a fork may inherit; the two clocks

Not promised: network file systems (refused), more than one machine, and survival of the last commits at a power loss unless `sync=full`.
"""

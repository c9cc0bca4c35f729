"""Handlers that behave as badly as they can, to be run by hand against a worker.

    python -m stem_iso.worker -A entrypoints.hostile:app
    stem-iso enqueue hostile.daemon -A entrypoints.hostile:app --args '{"ledger": "/tmp/pids", "marker": "look for me"}' --wait

Each ends as is said here, the worker goes on, and none of the processes that they start outlives its task. Each takes a `ledger`, a path to
which those processes append what they are (`trace`), and a `marker`, which they carry in their environment, so that a test can look whether
one survived; both may be left out. Limits are 0.1 s soft and 0.2 s hard. Whatever multiplies is bounded in number and time.

    ends at its limit   loop sums regex sleep blocked_read deaf ignores handlers swallow flood blank_lines stops_itself hog
                        threads                                                                                            (stuck)
                        children daemon vfork vfork_child subprocesses threads_that_fork two_hundred hops
                        no_subreaper clone_parent tracing_daemon                                                           (company)
                        storm storm_chain storm_sessions                                                                       (storms)
    over its memory     hog_limited                                                                                            (stuck)
    dies by itself      segfault exit_zero abort kill_group close_all                                                          (endings)
    fails               sys_exit unserialisable unpicklable unreducible mute big progress_flood meta_flood                     (endings)
    succeeds            threads_left daemon_left: what they leave behind is dead before anybody hears of the success           (endings)
                        no_subreaper_left clone_parent_left tracing_daemon_left: theirs is dead a second after it          (endings)
                        state_left: the next call meets its process as the first one did                                   (endings)
    either way          garbage: what it writes into its pipe costs it its isolate, unless its answer was first                (endings)

Three have a process that nobody can kill until somebody lets it go (`held`), and end then: foreign_child frozen_child debugged

Apart from these, and never run with other people's tasks, are those that turn on their own worker (`outward`):

    kill_keeper   the core kills every tree and leaves; the next worker takes the task, counted, until `max_redeliveries`
    stop_keeper   ends at its limit: the core wakes the keeper
    kill_core     the keeper kills every tree and starts another core, which takes the task, counted, until `max_redeliveries`
    stop_core     killed at its limit by the keeper, reported when somebody continues the core: nobody of ours does
"""

from entrypoints.hostile import company, endings, held, outward, storms, stuck
from entrypoints.hostile.trace import app

__all__ = ["app", "company", "endings", "held", "outward", "storms", "stuck"]

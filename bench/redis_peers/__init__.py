"""The same two tasks in eight queues, for `bench.redis`: one module each, all on the server of STEM_ISO_BENCH_REDIS.

    noop()            enqueue the task that answers its argument
    when()            enqueue the task that says when it began: wall clock, pushed to the list `bench:when`
    COMMAND           the worker, two tasks at once, quiet
    left(server)      how many tasks have not ended

Each runs as its own documentation starts it, with processes where it has them, and stores results where it can, as stem_iso always does.
What they cannot do is left to them: none but celery and rq isolates a task, none kills one at a limit as described here.

    stem_iso    2 isolates, soft and hard limits armed, status and result stored
    celery      prefork pool of 2, results in Redis, acks early (its default)
    rq          2 workers, a fork for each job, results kept
    dramatiq    2 processes of 8 threads (its default: with one thread each it does a seventh), no results
    huey        2 processes, results kept
    flexiq      prefork pool of 2, results kept; `flexiq_tuned` polls each millisecond and claims 64 at once (50 ms and 8 are its defaults)
    taskiq      2 processes, results in Redis; each runs up to 100 coroutines at once
    saq         1 process, 2 coroutines at once, results kept
"""

NAMES = ("stem_iso", "huey", "flexiq", "flexiq_tuned", "dramatiq", "taskiq", "saq", "celery", "rq")

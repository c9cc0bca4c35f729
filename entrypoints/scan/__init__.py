"""The scanner: regular expressions that users gave, over real files, in isolates.

    python -m entrypoints.scan [--pattern REGEX]... [--path FOLDER]...

    files ── batches ──> one task per (pattern, batch) ──> isolates, soft limit 1 s, hard limit 2 s
                                     │                          │
                 events: progress, limits, stacks          results: matches

Somebody else's regular expression is code: it can take longer than the universe lasts, inside a C function that keeps the GIL and lets no
Python code run, a signal handler included. Here such a one is reported at its soft limit with the line where it is stuck, and killed at its
hard limit, while the rest goes on.

    tasks     what a worker runs
    files     what is scanned
    service   the worker, started by command and stopped
    live      what is shown meanwhile
    summary   what is shown at the end
"""

"""The reference benchmark behind `python -m bench`: how fast limits are enforced, what is left behind, what a task costs.

    enforce   one sample: a hostile handler, a bystander and a next task in one system     work     pool, queue, payload, scale, memory
    chaos     a child, a worker or the program killed from outside                         driven   a driver process, and its requests
    observer  pids of ledgers, watched by pidfd         kernel    signals as the kernel saw them, where it shows them
    machine   versions, load, and the controls of every round                              venvs    one virtual environment a system
    samples   JSON lines, written and merged            statistics, matrix, promises       pure: what the samples say
    plots, page                                         the report

Nothing here decides what a system is: that is `bench.systems`, one file each.
"""

"""The command line, the edge of the package: `stem-iso` and what `python -m stem_iso.worker` reads.

    root            the group, and which error ends with which exit code
    worker          options to WorkerConfig to the launcher
    tasks           enqueue, status, result, revoke
    dead_letters    dlq list, show, replay, purge
    schedules       schedule list, pause, resume, trigger, remove
    inspect         queues, workers, events
    options         -A and --broker to an application
    output          values to JSON or to text
    defaults_table  the table of defaults

click is imported by these modules alone, so that `import stem_iso` does not pay for it.
"""


def main() -> None:
    """The console script."""
    from stem_iso.cli.root import run

    run()

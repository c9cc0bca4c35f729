"""The command line, the edge of the package: `stem-iso` and what `python -m stem_iso.worker` reads.

    root            the group, and which error ends with which exit code
    worker          options to WorkerConfig to the launcher
    tasks           enqueue, status, result, graph, revoke
    task_list       tasks
    task_changes    retry, run-now, edit, bulk
    queues          queues, queues pause, resume, purge
    control         control
    stats           stats, actions
    health          health
    dead_letters    dlq list, show, replay, purge
    schedules       schedule list, pause, resume, trigger, remove
    inspect         workers, events, migrate
    top             top: the view that stays
    filters         the options that choose tasks
    options         -A and --broker to an application
    output          values to JSON or to text
    table           columns that fit the terminal
    completion      values that a shell completes
    defaults_table  the table of defaults

click is imported by these modules alone, so that `import stem_iso` does not pay for it.
"""

from __future__ import annotations

from typing import Any


def main() -> None:
    """The console script."""
    _root().run()


def main_as_module() -> None:
    """`python -m stem_iso`."""
    _root().run_as_module()


def main_of_worker() -> None:
    """`python -m stem_iso.worker`."""
    _root().run_worker_alone()


def _root() -> Any:
    """The module of commands. Ctrl-C while it is imported is Ctrl-C, and no traceback of ours."""
    try:
        from stem_iso.cli import root
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    return root

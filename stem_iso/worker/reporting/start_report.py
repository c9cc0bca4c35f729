"""Report of a worker's start: what it serves, and what looks like a slip. Pure; the log writes it.

worker w-1: broker redis://localhost/0, queues default, images, 4 seats, 1 spares, cores 0,1
serves 12 tasks of shop.app:app (9 isolated, 3 inline)                         their names at debug
2 isolated tasks have no hard_time_limit …                                     once, at info
queue 'image': no task declares it; did you mean 'images'?                     a warning
reports.build: retry_for names 'jobs.Bsy', which jobs does not have …          a warning
reports.build: parameter 'price' arrives as plain data: …                      a warning
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from stem_iso.client.app_location import locate
from stem_iso.task.handler import FunctionHandler, form_of
from stem_iso.task.names import module_name
from stem_iso.task.options import Form
from stem_iso.validation import did_you_mean
from stem_iso.worker.options import WorkerOptions, declared_queues
from stem_iso.worker.reporting.error_names import ErrorNames

if TYPE_CHECKING:
    from stem_iso.app import Stem

SHOWN = 5  # names of tasks in a line at info; the rest is counted


class Remark(NamedTuple):
    level: int
    text: str


def start_report(app: Stem, options: WorkerOptions, broker: str) -> Iterator[Remark]:
    cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
    facts = f"queues {', '.join(options.queues)}, {options.seats} seats, {options.spares} spares, cores {cores}"
    yield Remark(logging.INFO, f"worker {options.id}: broker {broker}, {facts}")
    yield from _of_tasks(app)
    yield from _of_queues(app, options)
    yield from _of_retries(app)
    yield from _of_annotations(app)
    for text in options.origin.overruled:
        yield Remark(logging.INFO, text)


def _of_tasks(app: Stem) -> Iterator[Remark]:
    place = locate(app)
    name = f"{place.module}:{place.attribute}" if place else "the application"
    forms = {handler.name: form_of(handler) for handler in app.registry}
    if not forms:
        yield Remark(logging.WARNING, f"{name} declares no task: name the modules that do, with include=(...) or --include")
        return
    isolated = [task for task, form in sorted(forms.items()) if form is Form.ISOLATED]
    yield Remark(logging.INFO, f"serves {_counted(len(forms))} of {name} ({len(isolated)} isolated, {len(forms) - len(isolated)} inline)")
    yield Remark(logging.DEBUG, f"tasks: {', '.join(sorted(forms))}")
    endless = [task for task in isolated if app.options_of(task).hard_time_limit is None]
    if endless:
        way_out = "give one to the task, or to all by Stem(defaults=TaskOptions(hard_time_limit=...))"
        yield Remark(logging.INFO, f"isolated without hard_time_limit, so that nothing ends what hangs: {_listed(endless)}; {way_out}")


def _listed(tasks: list[str]) -> str:
    return ", ".join(tasks[:SHOWN]) + (f" and {len(tasks) - SHOWN} more" if len(tasks) > SHOWN else "")


def _counted(tasks: int) -> str:
    return "1 task" if tasks == 1 else f"{tasks} tasks"


def _of_queues(app: Stem, options: WorkerOptions) -> Iterator[Remark]:
    declared = declared_queues(app)
    for queue in options.queues:
        if queue not in declared and len(app.registry):
            yield Remark(logging.WARNING, f"queue {queue!r}: no task declares it{did_you_mean(queue, declared)}")


def _of_retries(app: Stem) -> Iterator[Remark]:
    """Names that no error bears, once for all tasks that have one from the application's defaults; errors to retry and no retry."""
    by_name: dict[tuple[str, str], list[str]] = {}
    vain: list[str] = []
    for task in sorted(handler.name for handler in app.registry):
        options = app.options_of(task)
        for option in ("retry_for", "dont_retry_for"):
            for name in getattr(options, option) or ():
                by_name.setdefault((option, name), []).append(task)
        if options.retry_for and not options.max_retries and "retry_for" in app.registry.resolve(task).options.given:
            vain.append(task)
    errors = ErrorNames(_homes(app)) if by_name else None
    for (option, name), tasks in by_name.items():
        if errors is not None and (flaw := errors.flaw(name)) is not None:
            yield Remark(logging.WARNING, f"{_listed(tasks)}: {option} names {name!r}, {flaw}")
    if vain:
        never = "retry_for without max_retries (0), so that nothing is retried; give max_retries to the task, or where it is enqueued"
        yield Remark(logging.WARNING, f"{_listed(vain)}: {never}")


def _of_annotations(app: Stem) -> Iterator[Remark]:
    """Annotations that look as if they converted, and do not."""
    for handler in sorted(app.registry, key=lambda handler: handler.name):
        if not isinstance(handler, FunctionHandler):
            continue
        for each in handler.parameters.unresolved:
            what = "its result" if each.parameter == "return" else f"parameter {each.parameter!r}"
            why = f"which cannot be resolved ({each.error}); write one that can"
            if each.missing is not None:
                why = f"and there is no {each.missing!r} when it runs; import it outside of `if TYPE_CHECKING`"
            yield Remark(logging.WARNING, f"{handler.name}: {what} arrives as plain data: it is annotated {each.annotation}, {why}")


def _homes(app: Stem) -> set[str]:
    """The modules in which tasks are declared."""
    sources = (handler.source.module if isinstance(handler, FunctionHandler) else type(handler).__module__ for handler in app.registry)
    return {module_name(module) for module in sources}

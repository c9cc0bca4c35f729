"""Defaults of an application's tasks: what holds where a task itself says nothing.

    Stem(defaults=TaskOptions(...))  <  [tool.stem_iso.defaults] of ./pyproject.toml  <  STEM_ISO_DEFAULT_HARD_TIME_LIMIT and its like
                                     └──────────────── task_defaults ────────────────┘
                                                            v
                             TaskOptions, of which a task takes what it has not said itself (`task.options.with_defaults`)

Rules
 1. What a task says wins, `max_retries=0` and None included.
 2. An unknown key of the file is refused with a "did you mean". An unknown variable is not, as in `config`: it may be
    somebody's own; a worker says what looks like a slip. An empty one says nothing.
 3. Code has no default: `isolate_entrypoint` and `retry_strategy` are said at the task, or to the worker. Nor has `redact`, which names
    parameters of one task.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stem_iso.config import NAMES, PREFIX, file_table, seconds, text, truth, whole, words
from stem_iso.errors import InvalidOptions
from stem_iso.task.options import TaskOptions, hint

VARIABLE = PREFIX + "DEFAULT_"

# How a variable, which is text, becomes what `TaskOptions` takes. A file has types, and may say it either way.
READERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("queue", "memory_limit", "soft_limit_action", "rate_limit"), text),
    **dict.fromkeys(("max_retries", "priority", "cpus", "max_concurrency"), whole),
    **dict.fromkeys(("unique", "acks_late", "cpu_bound", "on_commit"), truth),
    **dict.fromkeys(("soft_time_limit", "hard_time_limit", "heartbeat_timeout", "visibility_timeout"), seconds),
    **dict.fromkeys(("unique_for", "result_ttl", "expires"), seconds),
    **dict.fromkeys(("retry_for", "dont_retry_for"), words),
}
NEAR = 0.8  # of `difflib`: "concurency" is, "test_broker" is not
CODE = frozenset({"isolate_entrypoint", "retry_strategy", "redact"})


def task_defaults(declared: TaskOptions | None, environ: Mapping[str, str] | None = None, folder: Path | None = None) -> TaskOptions:
    """The defaults of an application that declares these. Raises InvalidOptions."""
    if declared is not None and not isinstance(declared, TaskOptions):
        raise InvalidOptions(f"defaults: {declared!r} must be TaskOptions(...)")
    given: dict[str, Any] = {} if declared is None else {name: getattr(declared, name) for name in declared.given}
    if code := CODE & given.keys():
        raise InvalidOptions(f"defaults: {', '.join(sorted(code))} cannot be a default; say it at the task, a strategy to the worker too")
    given |= _of_file(folder)
    given |= _of_environment(os.environ if environ is None else environ)
    return TaskOptions(**given)


def _of_file(folder: Path | None) -> dict[str, Any]:
    table = file_table(folder).get("defaults", {})
    if not isinstance(table, dict):
        raise InvalidOptions(f"[tool.stem_iso] defaults: {table!r} must be a table")
    return {name: _read("[tool.stem_iso.defaults] " + name, name, value) for name, value in table.items()}


def _of_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for variable, value in environ.items():
        if variable.startswith(VARIABLE) and value:
            name = variable.removeprefix(VARIABLE).lower()
            if name in READERS:
                found[name] = _read(variable, name, value)
    return found


def misspelt_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What to say of variables that are nearly those of a setting or a default, and so say nothing. Others are somebody's own."""
    from difflib import get_close_matches  # for a worker alone

    found = []
    for variable in sorted(environ):
        prefix, known = (VARIABLE, tuple(READERS)) if variable.startswith(VARIABLE) else (PREFIX, NAMES)
        name = variable.removeprefix(prefix).lower()
        if variable.startswith(prefix) and name not in known and (near := get_close_matches(name, known, 1, NEAR)):
            found.append(f"{variable} is no setting, and ignored; did you mean {prefix}{near[0].upper()}?")
    return tuple(found)


def _read(where: str, name: str, value: Any) -> Any:
    reader = READERS.get(name)
    if reader is None:
        raise InvalidOptions(f"{where}: there is no default of that name{hint(name.replace('-', '_'), READERS)}")
    try:
        return reader(value)
    except ValueError as error:
        raise InvalidOptions(f"{where}: {value!r} {error}") from None

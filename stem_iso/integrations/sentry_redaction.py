"""Redaction of what goes to Sentry: changes events, logs and metrics of its SDK, before a hook of the user's (`before_send`) has them.

    attempt   Redaction(names)        frames, extra, tags, user, contexts, spans, breadcrumbs, logentry ──> "***" under a name
    client    add_hooks               attributes of logs and metrics, by the `Redaction` of the scope in which they are made; and the stack
                                      that `attach_stacktrace` puts into an event, which comes when its processors are through
    process   without_own_variables   frames of this library lose their local variables, whatever a task redacts

Rules
 1. A name counts as a key, at any depth: of a dict, of a frame's variables, of an attribute. Of a frame's variables it counts in a repr
    as well. A value under another name is not known, nor one in another text. But what was logged as a template and a dict with such a key
    is shown as its template, in events and logs; a breadcrumb has the finished text alone.
 2. What Sentry and this library keep under a key (`trace` and `runtime` of an event, the five tags of an attempt) is no value of the
    user's, and stays.
 3. The frames of this library have the arguments of calls and the address of the broker, password included, under names that no task can
    know; so have the functions of Python and of the Redis client that they call.
 4. An event processor that raises is passed over by the SDK, with the event as it is: what cannot be read is "***" here.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from stem_iso.task.arguments import REDACTED

DEEPEST = 20  # containers within each other; one may contain itself
OWN_TAGS = frozenset(("task", "queue", "attempt", "worker", "task_id"))
OWN_CONTEXTS = frozenset(("stem_iso", "runtime"))
OWN_CRUMB = "stem_iso.attempt"  # the category of the breadcrumb of an earlier attempt
TEMPLATE, PARAMETER, USER = "sentry.message.template", "sentry.message.parameter.", "user."  # attributes of a log

PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
CALLED = sys.stdlib_module_names | {"redis", "msgspec"}


class Redaction:
    """An event processor: what bears one of `names` is "***"."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = frozenset(names)
        # As it stands in the repr of a dict, or of an object.
        self._written = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})['\"]?\s*[:=]")

    def __call__(self, event: Any, hint: Any) -> Any:
        self.frames(event)
        for part in ("extra", "user"):
            if part in event:
                event[part] = self.scrubbed(event[part])
        if isinstance(event.get("tags"), Mapping):
            event["tags"] = {name: value if name in OWN_TAGS else self._of(name, value) for name, value in event["tags"].items()}
        if isinstance(event.get("contexts"), Mapping):
            event["contexts"] = {name: self._context(name, context) for name, context in event["contexts"].items()}
        if event.get("spans"):
            event["spans"] = [self._with_data(span) for span in event["spans"]]
        self._breadcrumbs(event.get("breadcrumbs"))
        if isinstance(event.get("logentry"), Mapping):
            event["logentry"] = self._logentry(event["logentry"])
        return event

    def frames(self, event: Any) -> Any:
        for frames in _stacks(event):
            for frame in frames:
                if "vars" in frame:
                    frame["vars"] = self._without_texts(self.scrubbed(frame["vars"]))
        return event

    def _without_texts(self, value: Any) -> Any:
        """Objects, and containers deep in others, are variables as their repr: one that shows a name is left out."""
        if isinstance(value, dict):
            return {key: self._without_texts(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._without_texts(each) for each in value]
        return REDACTED if isinstance(value, str) and self._written.search(value) else value

    def scrubbed(self, value: Any, depth: int = DEEPEST) -> Any:
        """A copy, of plain dicts and lists."""
        if not isinstance(value, Mapping | list | tuple | set | frozenset):
            return value
        if not depth:
            return REDACTED
        try:
            if isinstance(value, Mapping):
                return {key: self._of(key, each, depth - 1) for key, each in value.items()}
            return [self.scrubbed(each, depth - 1) for each in value]
        except Exception:  # user code: a mapping of its own
            return REDACTED

    def attributes(self, item: Any) -> Any:
        """A log or a metric, whose attributes have dots in their names."""
        found = item.get("attributes")
        if not isinstance(found, Mapping):
            return item
        shown = {name: self._of(name.removeprefix(PARAMETER).removeprefix(USER), value) for name, value in found.items()}
        if TEMPLATE in found and any(name.removeprefix(PARAMETER) in self._names for name in found if name.startswith(PARAMETER)):
            item["body"] = found[TEMPLATE]
        item["attributes"] = shown
        return item

    def _of(self, name: Any, value: Any, depth: int = DEEPEST) -> Any:
        return REDACTED if name in self._names else self.scrubbed(value, depth)

    def _context(self, name: str, context: Any) -> Any:
        if name in OWN_CONTEXTS or not isinstance(context, Mapping):
            return context
        if name == "trace":
            return self._with_data(context)
        return dict.fromkeys(context, REDACTED) if name in self._names else self.scrubbed(context)  # Sentry wants an object

    def _with_data(self, part: Any) -> Any:
        """A span or a breadcrumb: the user's are the values in its `data`."""
        return {**part, "data": self.scrubbed(part["data"])} if isinstance(part, Mapping) and "data" in part else part

    def _breadcrumbs(self, found: Any) -> None:
        if isinstance(found, dict) and found.get("values"):
            found["values"] = [each if each.get("category") == OWN_CRUMB else self._with_data(each) for each in found["values"]]

    def _logentry(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        params = entry.get("params")
        shown = {**entry, "params": self.scrubbed(params)}
        if isinstance(params, Mapping) and self._names & params.keys() and "formatted" in entry:
            shown["formatted"] = entry.get("message", REDACTED)
        return shown


class BeforeSend:
    """A hook of a client: `change`, and then the user's own, if there is one."""

    def __init__(self, change: Callable[[Any], Any], inner: Callable[[Any, Any], Any] | None) -> None:
        self._change, self._inner = change, inner

    def __call__(self, item: Any, hint: Any) -> Any:
        item = self._change(item)
        return item if self._inner is None else self._inner(item, hint)


def add_hooks(options: dict[str, Any], redaction: Callable[[], Redaction | None]) -> None:
    """Into a client's options, once. `redaction`: of the scope in which it is called."""

    def event(found: Any) -> Any:
        redacts = redaction()
        return without_own_variables(found if redacts is None else redacts.frames(found), {})

    def telemetry(found: Any) -> Any:
        redacts = redaction()
        return found if redacts is None else redacts.attributes(found)

    for name, change in (("before_send", event), ("before_send_log", telemetry), ("before_send_metric", telemetry)):
        experiments = options.get("_experiments") or {}  # where earlier versions of the SDK look for the latter two
        inner = options.get(name) or experiments.get(name)
        if not isinstance(inner, BeforeSend):
            hook = BeforeSend(change, inner)
            options[name], options["_experiments"] = hook, {**experiments, name: hook}


def without_own_variables(event: Any, hint: Any) -> Any:
    """A processor of all events: no local variables of this library's frames, and of those that it called in Python itself."""
    for frames in _stacks(event):
        below = False
        for frame in frames:
            module = frame.get("module") or ""
            own = module.partition(".")[0] == "stem_iso" or (frame.get("abs_path") or "").startswith(PACKAGE)
            below = own or (below and module.partition(".")[0] in CALLED)
            if below:
                frame.pop("vars", None)
    return event


def _stacks(event: Any) -> Iterator[list[Any]]:
    for part in ("exception", "threads"):
        for value in (event.get(part) or {}).get("values") or ():
            if isinstance(value, dict):
                yield [frame for frame in (value.get("stacktrace") or {}).get("frames") or () if isinstance(frame, dict)]

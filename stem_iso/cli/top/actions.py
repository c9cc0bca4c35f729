"""Actions: what a key does to the row below the cursor. The question is asked first, always; a look (`stack`) needs none.

    ACTIONS: key ── applies(subject)? ──> question, consequence ── yes ──> perform(app, subject) ──> what became of it

Rules
 1. `perform` blocks, and raises StemError; a thread of its own calls it.
 2. A pid names a process for as long as that runs the same task. Between the question and the yes it may have ended, so `kill` and `stack`
    look again and refuse where it has. What is done by the id of a task needs no such look.
 3. Each deed leaves a line in the list of actions, whichever way it went.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stem_iso.brokers.records import IsolateInfo
from stem_iso.cli.top.snapshot import Failure, Subject
from stem_iso.client.queue_stats import QueueStats
from stem_iso.errors import ActionRefused, StemError
from stem_iso.printable import one_line

if TYPE_CHECKING:
    from stem_iso.app import Stem
    from stem_iso.client.worker_control import Acknowledged


@dataclass(frozen=True, slots=True)
class KeyAction:
    """`question` and `consequence` are for people, of safe text. `reads`: it changes nothing and is not asked; its answer is a text, of
    which the question is the title."""

    key: str
    word: str
    applies: Callable[[Subject], bool]
    question: Callable[[Subject], str]
    consequence: str
    perform: Callable[[Stem, Subject], str]
    reads: bool = False


def action_of(key: str, subject: Subject | None) -> KeyAction | None:
    """What this key does to it; None: nothing."""
    if subject is None:
        return None
    return next((action for action in ACTIONS if action.key == key and action.applies(subject)), None)


def actions_for(subject: Subject | None) -> list[KeyAction]:
    return [] if subject is None else [action for action in ACTIONS if action.applies(subject)]


# -- isolates --------------------------------------------------------------------------------------------------------------------------


def _is_isolate(subject: Subject) -> bool:
    return subject.worker_id is not None and subject.pid is not None


def _has_stack(subject: Subject) -> bool:
    shared = isinstance(subject.record, IsolateInfo) and subject.record.state == "shared"
    return _is_isolate(subject) and (subject.task_id is not None or shared)


def _refuse_another(app: Stem, subject: Subject) -> None:
    with app.broker_pool.borrow() as broker:
        workers = broker.workers()
    running = {(worker.id, isolate.pid): isolate.task_id for worker in workers for isolate in worker.isolates}
    key = subject.worker_id, subject.pid
    if key not in running:
        raise ActionRefused(f"isolate {subject.pid} of worker {subject.worker_id} is gone; nothing was done")
    if running[key] != subject.task_id:
        raise ActionRefused(f"isolate {subject.pid} runs something else by now; nothing was done")


def _kill(app: Stem, subject: Subject) -> str:
    return _answer(_ordered(app, subject, "kill"), f"isolate {subject.pid} is killed")


def _stack(app: Stem, subject: Subject) -> str:
    answers = _ordered(app, subject, "stack")
    return _answer(answers, answers.texts.get(subject.worker_id or "", "no stack"))


def _ordered(app: Stem, subject: Subject, action: str) -> Acknowledged:
    assert subject.worker_id is not None
    _refuse_another(app, subject)
    return app.control(subject.worker_id, action, subject.pid)


def _answer(answers: Acknowledged, done: str) -> str:
    if answers.refused:
        raise ActionRefused("; ".join(f"{worker} refuses: {why}" for worker, why in answers.refused.items()))
    if answers.silent:
        raise ActionRefused(f"{', '.join(answers.silent)} did not answer; it may still do it")
    if not answers:
        raise ActionRefused("there is no such worker any more")
    return done


# -- tasks -----------------------------------------------------------------------------------------------------------------------------


def _may_run(subject: Subject) -> bool:
    return subject.task_id is not None and not isinstance(subject.record, Failure)


def _has_failed(subject: Subject) -> bool:
    return subject.task_id is not None and isinstance(subject.record, Failure)


def _revoke(app: Stem, subject: Subject) -> str:
    return _revoked(app, subject, "revoke")


def _terminate(app: Stem, subject: Subject) -> str:
    return _revoked(app, subject, "terminate")


def _revoked(app: Stem, subject: Subject, word: str) -> str:
    assert subject.task_id is not None
    done = _logged(
        app, word, subject.task_id, lambda: "revoked" if app.revoke(subject.task_id or "", word == "terminate") else "it had ended"
    )
    return f"task {subject.task_id}: {done}"


def _retry(app: Stem, subject: Subject) -> str:
    assert subject.task_id is not None
    handle = app.handle(subject.task_id)

    def retry() -> str:
        handle.retry()
        return "runs again"

    return f"task {subject.task_id} {_logged(app, 'retry', subject.task_id, retry)}"


def _logged(app: Stem, word: str, target: str, act: Callable[[], str]) -> str:
    try:
        result = act()
    except ActionRefused as error:
        app.log_action(word, target, str(error))
        raise
    app.log_action(word, target, result)
    return result


# -- queues ----------------------------------------------------------------------------------------------------------------------------


def _is_open(subject: Subject) -> bool:
    return isinstance(subject.record, QueueStats) and not subject.record.paused


def _is_paused(subject: Subject) -> bool:
    return isinstance(subject.record, QueueStats) and subject.record.paused


def _pause(app: Stem, subject: Subject) -> str:
    return f"queue {subject.queue} is paused; {app.pause(subject.queue).in_words()}"


def _resume(app: Stem, subject: Subject) -> str:
    return f"queue {subject.queue} goes on; {app.resume(subject.queue).in_words()}"


# -- the table -------------------------------------------------------------------------------------------------------------------------


def _named(subject: Subject) -> str:
    return one_line(f"{subject.task or 'task'} ({subject.task_id})")


def _of_isolate(word: str) -> Callable[[Subject], str]:
    def question(subject: Subject) -> str:
        runs = f", which runs {_named(subject)}" if subject.task_id else ""
        return one_line(f"{word} isolate {subject.pid} of worker {subject.worker_id}") + f"{runs}?"

    return question


def _stack_title(subject: Subject) -> str:
    return one_line(f"Stack of isolate {subject.pid}, {subject.task or 'shared'}")


ACTIONS = (
    KeyAction(
        "k",
        "kill",
        _is_isolate,
        _of_isolate("Kill"),
        "Its process and all that it started die at once. What runs in it ends as crashed, and is tried again if it has retries left.",
        _kill,
    ),
    KeyAction(
        "i",
        "stack",
        _has_stack,
        _stack_title,
        "",
        _stack,
        reads=True,
    ),
    KeyAction(
        "x",
        "revoke",
        _may_run,
        lambda subject: f"Revoke {_named(subject)}?",
        "If it waits, it never runs. If it runs, it goes on to its end, and is not tried again.",
        _revoke,
    ),
    KeyAction(
        "X",
        "terminate",
        _may_run,
        lambda subject: f"Terminate {_named(subject)}?",
        "If it runs, it is killed at once. It ends as cancelled, and is not tried again.",
        _terminate,
    ),
    KeyAction(
        "r",
        "retry",
        _has_failed,
        lambda subject: f"Retry {_named(subject)}?",
        "It goes back to its queue with the same id and arguments, as a new run.",
        _retry,
    ),
    KeyAction(
        "p",
        "pause",
        _is_open,
        lambda subject: f"Pause queue {one_line(subject.queue or '')}?",
        "Nothing new begins of it until somebody resumes it, whichever worker comes. What runs goes on to its end.",
        _pause,
    ),
    KeyAction(
        "p",
        "resume",
        _is_paused,
        lambda subject: f"Resume queue {one_line(subject.queue or '')}?",
        "Its workers take from it again, at once.",
        _resume,
    ),
)


def outcome(action: KeyAction, app: Stem, subject: Subject) -> tuple[bool, str]:
    """Whether it was done, and what is to be said of it."""
    try:
        return True, action.perform(app, subject)
    except (StemError, TimeoutError) as error:
        return False, str(error)

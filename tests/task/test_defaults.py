"""Defaults of an application: what a task takes of them, and where they are said."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_iso import InvalidOptions, Stem, TaskHandler, TaskOptions, TaskRegistry
from stem_iso.client.task_defaults import READERS, misspelt_variables, task_defaults
from stem_iso.task.options import DECLARED_CHECKS, Form, with_defaults

PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "queue": st.sampled_from(["default", "images"]),
    "max_retries": st.integers(0, 3),
    "priority": st.integers(0, 9),
    "acks_late": st.booleans(),
    "result_ttl": st.none() | st.floats(1, 100),
    "expires": st.none() | st.floats(1, 100),
}


@given(said=st.fixed_dictionaries({}, optional=PLAIN), defaults=st.fixed_dictionaries({}, optional=PLAIN), form=st.sampled_from(Form))
def test_what_a_task_says_wins_and_the_rest_is_filled(said: dict[str, Any], defaults: dict[str, Any], form: Form) -> None:
    found = with_defaults(TaskOptions(**said), TaskOptions(**defaults), form)
    bare = TaskOptions()
    assert {name: getattr(found, name) for name in PLAIN} == {
        name: said[name] if name in said else defaults.get(name, getattr(bare, name)) for name in PLAIN
    }


def test_a_value_that_is_said_counts_though_it_is_the_default() -> None:
    app = Stem("memory://", defaults=TaskOptions(max_retries=3, hard_time_limit=300, result_ttl=60))
    app.task(name="once", isolate=True, max_retries=0, hard_time_limit=None)(print)
    app.task(name="often", isolate=True)(print)
    once, often = app.options_of("once"), app.options_of("often")
    assert (once.max_retries, once.hard_time_limit, once.result_ttl) == (0, None, 60)
    assert (often.max_retries, often.hard_time_limit, often.result_ttl) == (3, 300, 60)


def test_a_default_hard_limit_is_for_what_it_can_end() -> None:
    app = Stem("memory://", defaults=TaskOptions(hard_time_limit=timedelta(minutes=5), memory_limit="1GiB", cpu_bound=True, cpus=2))

    async def wait() -> None: ...

    app.task(name="inline")(len)
    app.task(name="async")(wait)
    app.task(name="isolated", isolate=True)(len)
    assert app.options_of("inline").hard_time_limit is None
    assert (app.options_of("async").hard_time_limit, app.options_of("async").memory_limit) == (300, None)
    isolated = app.options_of("isolated")
    assert (isolated.hard_time_limit, isolated.memory_limit, isolated.cpus) == (300, 1 << 30, 2)


def test_a_default_soft_limit_gives_way_to_a_tasks_own_hard_one() -> None:
    app = Stem("memory://", defaults=TaskOptions(soft_time_limit=30, hard_time_limit=60))
    app.task(name="short", isolate=True, hard_time_limit=30)(len)
    app.task(name="long", isolate=True, hard_time_limit=90)(len)
    assert app.options_of("short").soft_time_limit is None
    assert app.options_of("long").soft_time_limit == 30
    app.task(name="odd", isolate=True, soft_time_limit=60)(len)
    with pytest.raises(
        InvalidOptions, match=r"odd, with the application's defaults: soft_time_limit \(60 s\) must be below hard_time_limit"
    ):
        app.check()


def test_handlers_of_a_registry_that_two_applications_share_have_the_defaults_of_each() -> None:
    class Email(TaskHandler[None]):
        name = "email"
        options = TaskOptions(queue="mail")

        def call(self, context: object, args: dict[str, Any]) -> None: ...

    registry = TaskRegistry().register(Email())
    first, second = (Stem("memory://", registry=registry, defaults=TaskOptions(max_retries=count, queue="all")) for count in (1, 2))
    assert [(app.options_of("email").max_retries, app.options_of("email").queue) for app in (first, second)] == [(1, "mail"), (2, "mail")]


def test_a_default_that_the_broker_must_know_goes_into_the_envelope() -> None:
    app = Stem("memory://", defaults=TaskOptions(queue="images", priority=7))
    task = app.task(name="make", isolate=True)(len)
    with app.broker_pool.borrow() as broker:
        handle = task.enqueue([])
        assert handle.queue == "images"
        assert [each.name for each in broker.queues() if each.queued] == ["images"]


def test_environment_over_file_over_code(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.stem_iso.defaults]\nmax_retries = 2\nhard_time_limit = 20\nretry_for = ["OSError"]\nunique = true\n'
    )
    environ = {"STEM_ISO_DEFAULT_HARD_TIME_LIMIT": "7.5", "STEM_ISO_DEFAULT_QUEUE": "", "STEM_ISO_DEFAULT_NO_SUCH": "1"}
    found = task_defaults(TaskOptions(max_retries=1, queue="q", hard_time_limit=1), environ, tmp_path)
    assert (found.max_retries, found.hard_time_limit, found.queue, found.retry_for, found.unique) == (2, 7.5, "q", ("OSError",), True)
    assert found.given == {"max_retries", "hard_time_limit", "queue", "retry_for", "unique"}


def test_a_variable_that_is_nearly_a_setting_is_told_and_any_other_is_somebody_elses() -> None:
    environ = {
        "STEM_ISO_CONCURENCY": "9",
        "STEM_ISO_DEFAULT_HARD_TIMELIMIT": "3",
        "STEM_ISO_TEST_BROKER": "x",
        "STEM_ISO_SEED": "1",
        "PATH": "",
    }
    assert misspelt_variables(environ | {"STEM_ISO_CONCURRENCY": "1", "STEM_ISO_DEFAULT_UNIQUE": "yes", "STEM_ISO_APP": "a"}) == (
        "STEM_ISO_CONCURENCY is no setting, and ignored; did you mean STEM_ISO_CONCURRENCY?",
        "STEM_ISO_DEFAULT_HARD_TIMELIMIT is no setting, and ignored; did you mean STEM_ISO_DEFAULT_HARD_TIME_LIMIT?",
    )


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"STEM_ISO_DEFAULT_MAX_RETRIES": "many"}, r"STEM_ISO_DEFAULT_MAX_RETRIES: 'many' must be a whole number"),
        ({"STEM_ISO_DEFAULT_HARD_TIME_LIMIT": "-1"}, r"STEM_ISO_DEFAULT_HARD_TIME_LIMIT: '-1' must be a number of seconds"),
        ({"STEM_ISO_DEFAULT_SOFT_LIMIT_ACTION": "shout"}, "soft_limit_action: 'shout' must be 'event' or 'raise'"),
    ],
)
def test_nonsense_is_refused_where_it_was_said(tmp_path: Path, environ: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidOptions, match=message):
        task_defaults(None, environ, tmp_path)


def test_code_is_no_default() -> None:
    with pytest.raises(InvalidOptions, match="isolate_entrypoint cannot be a default"):
        Stem("memory://", defaults=TaskOptions(isolate_entrypoint=len))
    with pytest.raises(InvalidOptions, match=r"must be TaskOptions"):
        Stem("memory://", defaults={"max_retries": 1})  # type: ignore[arg-type]


def test_every_option_but_code_can_be_a_default() -> None:
    assert set(READERS) | {"isolate_entrypoint", "retry_strategy", "redact"} == set(DECLARED_CHECKS)

"""Where settings come from, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stem_iso.config import NAMES, SETTINGS, WorkerConfig, broker_url, load
from stem_iso.errors import InvalidOptions
from stem_iso.isolate.machine import allowed_cores
from stem_iso.validation import size

VALUES: dict[str, list[Any]] = {
    "app": ["jobs:app", "thumbs:app", "other"],
    "queues": [("a",), ("a", "b"), ("c",)],
    "concurrency": [1, 2, 7],
    "spares": [0, 1, 5],
    "burst": [True, False],
    "log_level": ["debug", "warning", "error"],
    "log_format": ["text", "json"],
    "shutdown_timeout": [0.0, 2.5, 25.0],
    "max_tasks_per_isolate": [1, 100],
    "max_memory_per_isolate": [1 << 20, 1 << 30],
    "unregistered_grace": [0.0, 60.0],
    "metrics_port": [0, 9100],
    "metrics_host": ["127.0.0.1", "::"],
    "secret_env": [("TOKEN",), ("TOKEN", "KEY")],
}


def written(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def toml(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else repr(value).replace("True", "true").replace("False", "false")


@pytest.mark.parametrize("name", VALUES)
@given(data=st.data())
def test_command_line_over_environment_over_file_over_default(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    given_at = {place: data.draw(st.none() | st.sampled_from(VALUES[name]), place) for place in ("line", "environ", "file")}
    folder = tmp_path_factory.mktemp("folder")
    if given_at["file"] is not None:
        (folder / "pyproject.toml").write_text(f"[tool.stem_iso]\n{name} = {toml(given_at['file'])}\n")
    environ = {} if given_at["environ"] is None else {f"STEM_ISO_{name.upper()}": written(given_at["environ"])}
    config = load({name: given_at["line"]}, environ, folder)
    expected = next((value for value in given_at.values() if value is not None), getattr(WorkerConfig(), name))
    assert getattr(config, name) == expected


def test_every_field_can_be_set_from_outside() -> None:
    assert {*NAMES, "overruled"} == set(WorkerConfig.__struct_fields__), "what disagrees follows from the rest"
    assert len({setting.variable for setting in SETTINGS}) == len(SETTINGS)


def test_it_travels_to_another_process_unchanged() -> None:
    config = load({"queues": "a,b", "secret_env": ("A",), "max_memory_per_isolate": "1GiB"}, {}, Path("/nonexistent"))
    assert msgspec.json.decode(msgspec.json.encode(config), type=WorkerConfig) == config
    assert config.concurrency == allowed_cores()


@pytest.mark.parametrize(
    ("given", "environ", "file", "message"),
    [
        ({"spares": "x"}, {}, "", "--spares: 'x' must be a whole number"),
        ({}, {"STEM_ISO_CONCURRENCY": "0"}, "", "concurrency: 0 must be at least 1"),
        ({}, {"STEM_ISO_SHUTDOWN_TIMEOUT": "nan"}, "", "STEM_ISO_SHUTDOWN_TIMEOUT: 'nan' must be a number of seconds"),
        ({"shutdown_timeout": "4e9"}, {}, "", "--shutdown-timeout: '4e9' must be a number of seconds, 100 years at most"),
        ({}, {}, f"unregistered_grace = 1{'0' * 400}", "[tool.stem_iso] unregistered_grace: 1000"),
        ({}, {"STEM_ISO_BURST": "perhaps"}, "", "STEM_ISO_BURST: 'perhaps' must be true or false"),
        ({}, {}, "log_format = 'jsno'", "did you mean 'json'?"),
        ({}, {}, "log_level = 3", "[tool.stem_iso] log_level: 3 must be a text"),
        ({}, {}, "conurrency = 3", "no setting 'conurrency'; did you mean 'concurrency'?"),
        ({}, {}, "shutdown-timeout = 3", "did you mean 'shutdown_timeout'?"),
        ({}, {}, "concurrency = true", "[tool.stem_iso] concurrency: True must be a whole number"),
        ({}, {}, "queues = [1]", "[tool.stem_iso] queues: [1] must be words"),
        ({}, {}, "spares = ", "is no TOML"),
        ({"max_memory_per_isolate": "12 parsecs"}, {}, "", "must be a size in bytes"),
    ],
)
def test_nonsense_is_refused_where_it_was_given(
    given: dict[str, Any], environ: dict[str, str], file: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.stem_iso]\n{file}\n")
    with pytest.raises(InvalidOptions) as refused:
        load(given, environ, tmp_path)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        ("concurrency", " 4 ", 4),
        ("shutdown_timeout", "1e1", 10.0),
        ("shutdown_timeout", "2", 2.0),
        ("burst", "Yes", True),
        ("log_level", "DEBUG", "debug"),
        ("queues", " a, b,,a", ("a", "b")),
    ],
)
def test_text_of_the_environment_is_read_for_what_it_spells(name: str, written: str, meant: object, tmp_path: Path) -> None:
    assert getattr(load({}, {f"STEM_ISO_{name.upper()}": written}, tmp_path), name) == meant


@pytest.mark.parametrize(("text", "bytes"), [("1048576", 1 << 20), ("512MiB", 512 << 20), ("1.5 GB", 1_500_000_000), ("2gib", 2 << 30)])
def test_sizes_have_units(text: str, bytes: int) -> None:
    assert size(text) == bytes


def test_the_broker_of_an_application_that_names_none(tmp_path: Path) -> None:
    assert broker_url({}, tmp_path) == "sqlite:///stem_iso.db"
    (tmp_path / "pyproject.toml").write_text("[tool.stem_iso]\nbroker = 'sqlite:///file.db'\n")
    assert broker_url({}, tmp_path) == "sqlite:///file.db"
    assert broker_url({"STEM_ISO_BROKER": "sqlite:///environ.db"}, tmp_path) == "sqlite:///environ.db"


def test_environment_and_file_do_not_move_an_application_from_its_broker(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.stem_iso]\nbroker = 'sqlite:///file.db'\n")
    assert load({}, {"STEM_ISO_BROKER": "sqlite:///environ.db"}, tmp_path).broker is None
    assert load({"broker": "sqlite:///line.db"}, {}, tmp_path).broker == "sqlite:///line.db"

"""Settings of a worker, and the four places from which they are read.

    command line  >  STEM_ISO_*  >  [tool.stem_iso] of ./pyproject.toml  >  the defaults of WorkerConfig
                                  └──────────────── load ────────────────┘
                                                     v
                                       WorkerConfig, frozen and checked

Rules
 1. `WorkerConfig` is the one home of these defaults; the README's table is made from it (`stem_iso.cli.defaults_table`).
 2. It is plain data (msgspec encodes it), because the launcher hands it to the core, which is another process.
 3. Nonsense is refused where it was said: the message names the option, the variable or the key, the value, and the way out.
 4. An unknown key of the file is refused with a "did you mean". An unknown STEM_ISO_* variable is not: environments are shared.
 5. `broker` is the exception to the order. A `Stem` that names its broker keeps it against environment and file, which only fill the gap
    (`broker_url`): otherwise a producer and a worker of one application could sit on two brokers. Only `--broker` overrides it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from stem_iso.errors import InvalidOptions
from stem_iso.isolate.machine import allowed_cores
from stem_iso.printable import without_password
from stem_iso.validation import LEAST_MEMORY, LONGEST, did_you_mean, size

V = TypeVar("V")

PREFIX = "STEM_ISO_"
DEFAULT_BROKER = "sqlite:///stem_iso.db"
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
LOG_FORMATS = ("text", "json")
NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=LONGEST)]
TRUTHS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False, "": False}


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a worker started by command. Durations are seconds, sizes bytes. Raises InvalidOptions."""

    app: str = ""
    include: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()  # empty: every queue that the application's tasks declare
    concurrency: int = msgspec.field(default_factory=allowed_cores)
    spares: int = 1
    broker: str | None = None  # None: the application's own
    burst: bool = False
    log_level: str = "info"
    log_format: str = "text"
    log_file: str | None = None  # None: stderr
    shutdown_timeout: float = 25.0
    max_tasks_per_isolate: int | None = None
    max_memory_per_isolate: int | None = None
    unregistered_grace: float = 60.0
    secret_env: tuple[str, ...] = ()
    metrics_port: int | None = None  # None: no server of metrics; 0: any port that is free
    metrics_host: str = "0.0.0.0"
    overruled: tuple[str, ...] = ()  # for people: what another place said otherwise

    def __post_init__(self) -> None:
        _at_least("concurrency", self.concurrency, 1, "a worker needs a seat to run anything in")
        _at_least("spares", self.spares, 0, "0 keeps no isolate ready")
        _at_least("shutdown_timeout", self.shutdown_timeout, 0, "0 ends running tasks at once")
        _at_least("unregistered_grace", self.unregistered_grace, 0, "0 dead-letters an unknown name at once")
        _at_most("shutdown_timeout", self.shutdown_timeout, LONGEST)
        _at_most("unregistered_grace", self.unregistered_grace, LONGEST)
        _at_least("max_tasks_per_isolate", self.max_tasks_per_isolate, 1, "leave it out for no limit")
        _at_least("max_memory_per_isolate", self.max_memory_per_isolate, LEAST_MEMORY, "the size is in bytes, or as '512MiB'")
        _at_least("metrics_port", self.metrics_port, 0, "0 takes any port that is free; leave it out for no metrics")
        if self.metrics_port is not None and self.metrics_port > 65535:
            raise InvalidOptions(f"metrics_port: {self.metrics_port!r} must be at most 65535; 0 takes any port that is free")
        _one_of("log_level", self.log_level, LOG_LEVELS)
        _one_of("log_format", self.log_format, LOG_FORMATS)

    def __repr__(self) -> str:
        """Without the password that the broker's URL may hold."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        values["broker"] = None if self.broker is None else without_password(self.broker)
        return f"WorkerConfig({', '.join(f'{name}={value!r}' for name, value in values.items())})"


def _at_least(name: str, value: float | None, least: int, way_out: str) -> None:
    if value is not None and not value >= least:
        raise InvalidOptions(f"{name}: {value!r} must be at least {least}; {way_out}")


def _at_most(name: str, value: float, most: float) -> None:
    if not value <= most:
        raise InvalidOptions(f"{name}: {value!r} must be at most {most:g} s, 100 years")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidOptions(f"{name}: {value!r} is none of {', '.join(known)}{did_you_mean(value, known, '')}")


# -- reading one value -----------------------------------------------------------------------------------------------------------------


def text(value: Any) -> str:
    return str(_as(NonEmpty, value, "a text"))


def lowered(value: Any) -> str:
    return text(value).lower()


def whole(value: Any) -> int:
    return int(_as(int, value, "a whole number"))


def seconds(value: Any) -> float:
    return float(_as(Seconds, value, "a number of seconds, 100 years at most"))


def truth(value: Any) -> bool:
    known = value if isinstance(value, bool) else TRUTHS.get(str(value).strip().lower())
    if known is None:
        raise ValueError("must be true or false")
    return known


def words(value: Any) -> tuple[str, ...]:
    """A list, or words with commas between."""
    parts = _as(tuple[str, ...], [value] if isinstance(value, str) else value, "words with commas between")
    return tuple(dict.fromkeys(word for part in parts for word in (piece.strip() for piece in part.split(",")) if word))


def _as(kind: Any, value: Any, meant: str) -> Any:
    """Not strict: a number may be given as text, since a variable of the environment is nothing else."""
    try:
        return msgspec.convert(value.strip() if isinstance(value, str) else value, kind, strict=False)
    except msgspec.ValidationError:
        raise ValueError(f"must be {meant}") from None


# -- the table -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a worker. `flags` are its names on the command line, `meaning` is for `--help` and the README."""

    name: str
    flags: tuple[str, ...]
    read: Callable[[Any], Any]
    meaning: str
    metavar: str = "N"

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()


SETTINGS = (
    Setting("app", ("-A", "--app"), text, "the application, module:attribute (the attribute may be left out)", "MODULE:APP"),
    Setting("include", ("--include",), words, "a module that declares tasks, imported at start; may be given again", "MODULE"),
    Setting("queues", ("-Q", "--queues"), words, "the queues to take from, with commas between", "A,B"),
    Setting("concurrency", ("-c", "--concurrency"), whole, "seats: how many tasks run at once, inline and isolated together"),
    Setting("spares", ("--spares",), whole, "isolates that stand ready, booted, beyond those in use"),
    Setting("broker", ("--broker",), text, "the broker, instead of the application's own", "URL"),
    Setting("burst", ("--burst",), truth, "end when nothing is ready, running or awaiting a retry here", ""),
    Setting("log_level", ("-l", "--log-level"), lowered, f"what is logged: {', '.join(LOG_LEVELS)}", "LEVEL"),
    Setting("log_format", ("--log-format",), lowered, f"how it is logged: {' or '.join(LOG_FORMATS)}", "FORMAT"),
    Setting("log_file", ("--log-file",), text, "a file that the log is appended to, instead of stderr", "PATH"),
    Setting("shutdown_timeout", ("--shutdown-timeout",), seconds, "how long running tasks may go on after TERM", "S"),
    Setting("max_tasks_per_isolate", ("--max-tasks-per-isolate",), whole, "recycle an isolate after so many tasks"),
    Setting("max_memory_per_isolate", ("--max-memory-per-isolate",), size, "recycle an isolate over so much memory (512MiB)", "SIZE"),
    Setting("unregistered_grace", ("--unregistered-grace",), seconds, "how long a task without a handler is given back", "S"),
    Setting("metrics_port", ("--metrics-port",), whole, "serve /metrics, /healthz and /readyz at this port; 0: any that is free"),
    Setting("metrics_host", ("--metrics-host",), text, "the address for that; 127.0.0.1: for this machine alone", "HOST"),
    Setting("secret_env", ("--secret-env",), words, "a variable that isolates do not see; may be given again", "NAME"),
)
NAMES = tuple(setting.name for setting in SETTINGS)


def load(command_line: Mapping[str, Any], environ: Mapping[str, str] | None = None, folder: Path | None = None) -> WorkerConfig:
    """The settings of a worker; `command_line` holds what was given there, by setting's name. Raises InvalidOptions.

    None on the command line and an empty variable mean: not given.
    """
    environ, table = os.environ if environ is None else environ, file_table(folder)
    values: dict[str, Any] = {}
    overruled = []
    for setting in SETTINGS:
        sources = [(setting.flags[-1], command_line.get(setting.name))]
        if setting.name != "broker":
            sources += [
                (setting.variable, environ.get(setting.variable) or None),
                (f"[tool.stem_iso] {setting.name}", table.get(setting.name)),
            ]
        said = [(where, value) for where, value in sources if value is not None]
        if said:
            values[setting.name] = _read(setting.read, *said[0])
            overruled += [
                f"{where} ({value}) is overruled by {said[0][0]} ({said[0][1]})" for where, value in said[1:] if value != said[0][1]
            ]
    return WorkerConfig(**values, overruled=tuple(overruled))


def overruled_broker(url: str, environ: Mapping[str, str] | None = None, folder: Path | None = None) -> str | None:
    """What to say where an application names its broker in code, and the environment or the file another one; None where they agree."""
    variable = PREFIX + "BROKER"
    given, where = (os.environ if environ is None else environ).get(variable), variable
    if not given:
        given, where = file_table(folder).get("broker"), "[tool.stem_iso] broker"
    if not given or given == url:
        return None
    shown = without_password(str(given))
    return f"{where} ({shown}) is overruled by the broker that the application names in code; leave it out there, or give --broker"


def broker_url(environ: Mapping[str, str] | None = None, folder: Path | None = None) -> str:
    """The broker of an application that names none: STEM_ISO_BROKER, then the file, then a database in the working folder."""
    variable = PREFIX + "BROKER"
    given = (os.environ if environ is None else environ).get(variable)
    if given:
        return given
    url = file_table(folder).get("broker", DEFAULT_BROKER)
    return _read(text, "[tool.stem_iso] broker", url)


def included_modules(environ: Mapping[str, str] | None = None, folder: Path | None = None) -> tuple[str, ...]:
    """The modules of tasks that STEM_ISO_INCLUDE names, else the file, as for a worker."""
    variable = PREFIX + "INCLUDE"
    given = (os.environ if environ is None else environ).get(variable)
    return _read(words, variable, given) if given else _read(words, "[tool.stem_iso] include", file_table(folder).get("include", ()))


def file_table(folder: Path | None = None) -> dict[str, Any]:
    """[tool.stem_iso] of the working folder's pyproject.toml, empty where there is none. Raises InvalidOptions."""
    path = (folder or Path()) / "pyproject.toml"
    try:
        content = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except UnicodeDecodeError as error:
        raise InvalidOptions(f"{path} is no TOML: {error}") from None
    import tomllib  # every application looks for a file, and few have one

    try:
        document = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise InvalidOptions(f"{path} is no TOML: {error}") from None
    tool = document.get("tool", {})
    table = tool.get("stem_iso", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise InvalidOptions(f"{path}: [tool.stem_iso] must be a table")
    for key in table:
        if key not in NAMES and key != "defaults":  # a table of its own: `client.task_defaults`
            raise InvalidOptions(f"{path}: [tool.stem_iso] has no setting {key!r}{did_you_mean(key.replace('-', '_'), NAMES)}")
    return table


def _read(read: Callable[[Any], V], where: str, value: Any) -> V:
    try:
        return read(value)
    except ValueError as error:
        raise InvalidOptions(f"{where}: {value!r} {error}") from None

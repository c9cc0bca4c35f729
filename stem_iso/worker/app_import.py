"""Import of the application that `-A` names.

    "thumbs:app"    module and attribute (dots in the attribute go on: "thumbs:apps.main")
    "thumbs"        the attribute may be left out where the module holds exactly one Stem

Rules
 1. The working folder is first on `sys.path`, whatever started this program, unless it was started with -P or -I, which forbid that.
 2. Two kinds of failure. The name is wrong: `InvalidOptions`, one line. The user's module raised while it was imported: `BrokenModule`,
    with the user's own traceback and without our frames, since the fault is in the module.
 3. Nothing here opens a broker; one that no other process could reach is refused (`shared`).
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING

from stem_iso.errors import InvalidOptions, StemError
from stem_iso.validation import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from stem_iso.app import Stem
    from stem_iso.config import WorkerConfig


class BrokenModule(StemError):
    """The user's module raised while it was imported; `traceback` is its own, from its first line on."""

    def __init__(self, module: str, traceback: str) -> None:
        super().__init__(module, traceback)
        self.module, self.traceback = module, traceback

    def __str__(self) -> str:
        return f"importing {self.module!r} failed:\n{self.traceback.rstrip()}"


def working_folder_first() -> None:
    if sys.flags.safe_path:
        return
    folder = os.getcwd()
    sys.path[:] = [folder, *(entry for entry in sys.path if entry not in ("", folder))]


def application(config: WorkerConfig) -> Stem:
    """The application of a worker started by command, on its broker. Raises InvalidOptions and BrokenModule: exit code 2."""
    return shared(find_app(config.app, config.include), config.broker)


def shared(app: Stem, broker: str | None = None) -> Stem:
    """`app`, moved to `broker` where one is given. Raises InvalidOptions for a broker that lives in one process."""
    from stem_iso.client.broker_pool import BrokerConfig

    if broker is not None:
        app.site = BrokerConfig(broker, app.site.overrides)
    if app.site.address.scheme == "memory":
        raise InvalidOptions("broker memory:// lives in one process, so by command nobody could enqueue: use sqlite:///PATH")
    return app


def find_app(target: str, include: Iterable[str] = ()) -> Stem:
    """The application that `target` names, with the modules that it and `include` name imported. Raises InvalidOptions and BrokenModule."""
    from stem_iso.app import Stem
    from stem_iso.client.app_modules import modules_named

    working_folder_first()
    name, _, path = target.partition(":")
    if not name or name.startswith(".") or "/" in name:
        raise InvalidOptions(f"-A {target!r}: give a module as Python imports it, and its attribute: module:app")
    module = _imported(name)
    found = _attribute(module, path) if path else _only_stem(module, Stem)
    if not isinstance(found, Stem):
        raise InvalidOptions(f"-A {target!r}: {path!r} is a {type(found).__name__}, not a Stem")
    found.named_by = name
    found.includes = modules_named("include", (*found.includes, *include))
    for included in found.includes:
        _imported(included, "include")
    return found


def find_object(option: str, target: str) -> object:
    """What `target` names ("module:attribute"); `option` is where it was said, for errors. Raises InvalidOptions and BrokenModule."""
    working_folder_first()
    name, _, path = target.partition(":")
    if not name or not path or name.startswith(".") or "/" in name:
        raise InvalidOptions(f"{option} {target!r}: give a module as Python imports it, and its attribute: module:name")
    return _attribute(_imported(name, option), path, option)


def _imported(name: str, option: str = "-A") -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            here = "(-P or -I keep Python from looking into the working folder)" if sys.flags.safe_path else f"here ({os.getcwd()}) or"
            raise InvalidOptions(f"{option} {name!r}: there is no module {error.name!r} {here} among what is installed") from None
        raise BrokenModule(name, _users_traceback(error)) from None
    except KeyboardInterrupt:  # Ctrl-C, while a command imports it; a core takes no signals, and says what it is
        raise
    except BaseException as error:  # user code: a module may raise whatever it likes
        raise BrokenModule(name, _users_traceback(error)) from None


def _users_traceback(error: BaseException) -> str:
    """Without the frames of this file and of the import system, which are nobody's fault."""
    frame = error.__traceback__
    while frame is not None and (frame.tb_frame.f_code.co_filename == __file__ or "importlib" in frame.tb_frame.f_code.co_filename):
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(error), error, frame))


def _attribute(module: ModuleType, path: str, option: str = "-A") -> object:
    found: object = module
    for part in path.split("."):
        if not hasattr(found, part):
            near = did_you_mean(part, [name for name in dir(found) if not name.startswith("_")], "")
            raise InvalidOptions(f"{option} {module.__name__}:{path}: there is no {part!r} in it{near}")
        found = getattr(found, part)
    return found


def _only_stem(module: ModuleType, stem: type[Stem]) -> object:
    named = {id(value): name for name, value in sorted(vars(module).items(), reverse=True) if isinstance(value, stem)}
    if len(named) == 1:
        return getattr(module, next(iter(named.values())))
    choices = f"it has {', '.join(sorted(named.values()))}" if named else "it has none"
    raise InvalidOptions(f"-A {module.__name__}: say which Stem, as {module.__name__}:NAME; {choices}")

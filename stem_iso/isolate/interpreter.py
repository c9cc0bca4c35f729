"""Flags and search path of the interpreters that we start: the program's, arranged so that our imports find our packages.

    program ── arguments, own_path, Program ──> keeper ──> isolate: imports ours by `own_path`, then sees what `Program` says

Rules
 1. An isolate has every flag of the program: -O, -W, -X, -b, -B, -u, -s, -S, -E, -I, -P. The keeper, in which no user code runs, has only
    those that say where Python looks and what it heeds.
 2. Until it reaches user code, a process of ours looks into the standard library first, then to where our own packages stand, and then
    where the program looks: a `json.py` of the working folder is the program's, and no part of us.
 3. From then on its search path is the program's, entry for entry. Nothing is added to it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

# -X importtime and -X showrefcount write to stderr at every import and exit; -X presite is for tests of Python itself.
LEFT_OUT = frozenset({"importtime", "showrefcount", "presite"})
OWN_ROOT = str(Path(__file__).parents[2])  # where `stem_iso` was found
FLAGS = {"debug": "d", "dont_write_bytecode": "B", "no_site": "S", "bytes_warning": "b", "quiet": "q", "optimize": "O"}


class Program(NamedTuple):
    """What user code in an isolate sees of its program. `main_file` and `main_name` are its `__main__`'s file and, after `-m`, its name."""

    path: list[str]
    argv: list[str]
    main_file: str | None = None
    main_name: str | None = None


def arguments() -> list[str]:
    """Flags that start an interpreter like this one."""
    found = [f"-{letter * count}" for name, letter in FLAGS.items() if (count := int(getattr(sys.flags, name))) > 0]
    if getattr(sys.__stdout__, "write_through", False):
        found.append("-u")
    found += _where()
    given = () if sys.flags.ignore_environment else os.environ.get("PYTHONWARNINGS", "").split(",")
    found += [f"-W{each}" for each in warnings_of(sys.warnoptions, given, sys.flags.dev_mode, sys.flags.bytes_warning)]
    return found + _extended(sys._xoptions)


def keepers_arguments() -> list[str]:
    """Those for a process without user code: where it looks, what it heeds, and how it reads file names."""
    found = ["-B"] if sys.flags.dont_write_bytecode else []
    found += ["-S"] if sys.flags.no_site else []
    return found + _where() + _extended({name: value for name, value in sys._xoptions.items() if name == "utf8"})


def _where() -> list[str]:
    if sys.flags.isolated:
        return ["-I"]
    flags = {"ignore_environment": "-E", "no_user_site": "-s", "safe_path": "-P"}
    return [flag for name, flag in flags.items() if getattr(sys.flags, name)]


def _extended(options: dict[str, Any]) -> list[str]:
    found = []
    for name, value in options.items():
        if name not in LEFT_OUT:
            found += ["-X", name if value is True else f"{name}={value}"]
    return found


def warnings_of(options: Iterable[str], environment: Iterable[str], dev_mode: bool, bytes_warning: int) -> list[str]:
    """What was given by -W: without what Python adds by itself for -X dev and -b, and reads from PYTHONWARNINGS. Pure."""
    found = list(options)
    if dev_mode and found[:1] == ["default"]:
        del found[0]
    given = [each for each in environment if each]
    if given and found[: len(given)] == given:
        del found[: len(given)]
    if bytes_warning and found[-1:] == ["error::BytesWarning" if bytes_warning > 1 else "default::BytesWarning"]:
        del found[-1]
    return found


def search_path() -> list[str]:
    """This process's, as another one can use it: import ignores what is no text, and means the working folder by ''."""
    folder = working_folder()
    return [entry or folder for entry in sys.path if isinstance(entry, str)]


def working_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "/"


def own_path(path: Iterable[str]) -> list[str]:
    """The same folders, in the order in which imports of ours look into them."""
    return reordered(path, os.path.dirname(os.__file__), (OWN_ROOT, os.path.dirname(os.path.dirname(msgspec.__file__))))


def reordered(path: Iterable[str], library: str, roots: Collection[str]) -> list[str]:
    """The standard library's entries, then these roots, then the rest. Pure."""
    entries = list(path)
    standard = [entry for entry in entries if _is_standard(entry, library)]
    return list(dict.fromkeys((*standard, *roots, *entries)))


def _is_standard(entry: str, library: str) -> bool:
    if entry == library or entry == os.path.join(library, "lib-dynload"):
        return True
    name = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    return os.path.basename(entry) == name and os.path.dirname(entry) == os.path.dirname(library)


def code(path: Iterable[str], then: str) -> str:
    """A program for `python -c` that does `then` with this search path. What it says first costs no import."""
    return f"import sys; sys.path[:] = {list(path)!a}; {then}"


def program() -> Program:
    """What isolates of this process will see. Of a `__main__` of ours they see nothing: who runs `python -m stem_iso.worker` has none."""
    argv = list(sys.argv) if hasattr(sys, "argv") else [""]
    main = sys.modules.get("__main__")
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    name = getattr(spec, "name", None)
    if (isinstance(name, str) and name.partition(".")[0] == "stem_iso") or not isinstance(file, str):
        return Program(search_path(), argv)
    return Program(search_path(), argv, os.path.abspath(file), name if isinstance(name, str) else None)

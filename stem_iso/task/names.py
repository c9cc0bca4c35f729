"""Names of exceptions, functions and tasks that mean the same in every process.

`__main__` is the trap: the program's own module has that name in one process only. An isolate loads the same file under its real name
(`__spec__`, else the file's stem), so names made from it must say that one.
"""

from __future__ import annotations

import sys
from pathlib import PurePath


def main_name() -> str:
    """The real name of this process's `__main__` module; "__main__" itself where there is neither spec nor file (a REPL)."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        # `python -m package` runs package/__main__.py, whose spec says so; that is a name one can import.
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return PurePath(file).stem if file else "__main__"


def module_name(module: str, main: str | None = None) -> str:
    return (main_name() if main is None else main) if module == "__main__" else module


def dotted(cls: type, main: str | None = None) -> str:
    """The dotted name of a class; bare for builtins, as in a traceback. `main` is what `__main__` stands for, if not this process's own."""
    module = getattr(cls, "__module__", None)
    qualname = getattr(cls, "__qualname__", None) or cls.__name__
    if not isinstance(module, str) or module == "builtins":
        return str(qualname)
    return f"{module_name(module, main)}.{qualname}"


def default_task_name(function: object) -> str:
    """Module and qualified name of a function; `<locals>` stays in it, so that two functions of one name in two places differ."""
    return f"{module_name(str(getattr(function, '__module__', '') or '__main__'))}.{getattr(function, '__qualname__', '')}"


def joined(*parts: str) -> str:
    """Names as one key, so that other parts never make the same one."""
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)

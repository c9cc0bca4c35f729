"""The first lines of an isolate: loky's child, and then an interpreter as any program's.

    python FLAGS -c "... entry.run(pipe)" ── preparation, LokyProcess ──> main.main(fds, program) ── as_in_any_program ──> user code

loky's own child program (`python -m loky.backend.popen_loky_posix`) would be `__main__` here, and what multiprocessing keeps about a child
would be loky's: its start method as everybody's default, its descriptors as the resource trackers', a process that has a parent. What a
handler does with multiprocessing must work as in the program itself, so nothing of that is taken over, or it is put back before user code
runs. Whoever asks for loky's context has it.
"""

from __future__ import annotations

import builtins
import itertools
import os
import pickle
import sys
from importlib.machinery import ModuleSpec
from multiprocessing import context, process, synchronize
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from stem_iso.isolate.interpreter import Program

# As they are before the start changes them: loky puts a `_make_name` of its own there when it is imported.
MAIN_PROCESS: Any = process.current_process()
DEFAULT_CONTEXT: Any = context._default_context  # type: ignore[attr-defined, unused-ignore]
MAKE_NAME: Any = synchronize.SemLock.__dict__["_make_name"]


def run(pipe: int) -> NoReturn:
    """What loky's child does with the descriptor of its pipe; but of loky's preparation nothing is wanted."""
    MAIN_PROCESS._inheriting = True
    try:
        with os.fdopen(pipe, "rb") as parent:
            preparation = pickle.load(parent)
            child = pickle.load(parent)
    finally:
        del MAIN_PROCESS._inheriting
    for fd in {preparation["tracker_fd"], preparation["mp_tracker_fd"]}:  # the keeper has no trackers (`keeper.spawn`)
        os.close(fd)
    sys.exit(child._bootstrap())


def as_in_any_program(program: Program) -> None:
    """Undo what the start has left in the interpreter, and show user code the program's path, arguments and `__main__`."""
    state: Any = process
    state._current_process, state._parent_process, state._process_counter = MAIN_PROCESS, None, itertools.count(1)
    DEFAULT_CONTEXT._actual_context = None
    synchronize.SemLock._make_name = MAKE_NAME  # type: ignore[attr-defined]
    sys.path[:], sys.argv[:] = program.path, program.argv
    sys.modules["__main__"] = _main_of(program)


class StartMethod:
    """multiprocessing's default, as start-up left it: a call may choose another, or use it and so settle it, for itself alone."""

    def __init__(self) -> None:
        self._chosen = DEFAULT_CONTEXT._actual_context

    def restore(self) -> None:
        DEFAULT_CONTEXT._actual_context = self._chosen


def _main_of(program: Program) -> ModuleType:
    """An empty `__main__` that says where the program's stands: multiprocessing's own children look there."""
    main = ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    if program.main_file is not None:
        main.__file__ = program.main_file
    if program.main_name is not None:
        main.__spec__ = ModuleSpec(program.main_name, None, origin=program.main_file)
        main.__package__ = program.main_name.rpartition(".")[0]
    return main

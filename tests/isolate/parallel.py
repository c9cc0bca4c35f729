"""Functions that use multiprocessing, for isolates and for the children that they start."""

from __future__ import annotations

import multiprocessing as mp
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def double(value: int) -> int:
    return 2 * value


def joined(method: str | None) -> int | None:
    context: Any = mp.get_context(method)
    process = context.Process(target=double, args=(1,))
    process.start()
    process.join()
    code: int | None = process.exitcode
    return code


def start_method(method: str) -> str | None:
    mp.set_start_method(method)
    return mp.get_start_method()


def default_after_a_process() -> str | None:
    joined(None)
    return mp.get_start_method()


def pool_of(method: str) -> list[int]:
    context: Any = mp.get_context(method)
    with context.Pool(2) as pool, ProcessPoolExecutor(1, mp_context=context) as executor:
        found: list[int] = pool.map(double, [1, 2, 3])
        assert list(executor.map(double, [1, 2, 3])) == found
        return found


def through_loky() -> list[int]:
    from loky import ProcessPoolExecutor as LokyExecutor  # type: ignore[attr-defined]

    with LokyExecutor(1) as executor:
        return list(executor.map(double, [1, 2, 3]))


def current() -> tuple[str, bool, object]:
    process = mp.current_process()
    return process.name, process.daemon, mp.parent_process()


def semaphore_name() -> str:
    name: str = mp.get_context("spawn").Lock()._semlock.name  # type: ignore[attr-defined]
    return name

"""Port of a context: what it needs of the transport below it. `isolate.interfaces.CorePort` is one; this layer knows no isolation."""

from __future__ import annotations

from typing import Protocol


class ContextPort(Protocol):
    @property
    def soft_deadline(self) -> float | None: ...

    @property
    def hard_deadline(self) -> float | None: ...

    @property
    def isolated(self) -> bool: ...

    @property
    def cpus(self) -> frozenset[int] | None: ...

    def ask(self, payload: bytes) -> bytes: ...

    def tell(self, payload: bytes) -> None: ...

    def beat(self) -> None: ...

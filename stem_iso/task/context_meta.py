"""`context.meta`: a dict that says so when it is changed, so that what a handler writes outlives the handler, however it ends.

A change inside a value (`meta["seen"]["x"] = 1`) is no change of this dict; it is found at the end of the attempt, by comparing bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stem_iso.task.codec import first_refused, pack
from stem_iso.task.context_protocol import MetaRequest


class Meta(dict[str, Any]):
    """Raises TypeError for what is no plain data, PayloadTooLarge past `max_payload_bytes`, and is then as it was before."""

    def __init__(self, content: Mapping[str, Any], send: Callable[[MetaRequest], None]) -> None:
        super().__init__(content)
        self._send = send
        self._sent = pack(content)

    def replace(self, content: Mapping[str, Any]) -> None:
        """All of the content at once; every change takes this road."""
        if not all(isinstance(key, str) for key in content):
            raise TypeError("the keys of meta must be strings")
        packed = _packed(content)
        self._send(MetaRequest(dict(content)))
        super().clear()
        super().update(content)
        self._sent = packed

    def send_if_changed(self) -> None:
        if _packed(self) != self._sent:
            self.replace(dict(self))

    def __setitem__(self, key: str, value: Any) -> None:
        self.replace({**self, key: value})

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def __ior__(self, other: Any) -> Meta:  # type: ignore[override,misc]
        self.update(other)
        return self

    def update(self, *args: Any, **kwargs: Any) -> None:
        self.replace({**self, **dict(*args, **kwargs)})

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        content = dict(self)
        value = content.pop(key, *default)
        self.replace(content)
        return value

    def popitem(self) -> tuple[str, Any]:
        content = dict(self)
        item = content.popitem()
        self.replace(content)
        return item

    def clear(self) -> None:
        self.replace({})

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def _packed(content: Mapping[str, Any]) -> bytes:
    """Raises TypeError with the key."""
    try:
        return pack(dict(content))
    except TypeError:
        if (found := first_refused(content)) is not None:
            raise TypeError(f"meta[{found[0]!r}] cannot be kept: {found[1]}") from None
        raise

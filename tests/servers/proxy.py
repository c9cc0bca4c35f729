"""A loopback proxy before one server: what it does to the bytes between is said here, and counted.

    with Proxy(server) as proxy:
        broker = open_broker(proxy.url)
        proxy.cut_answer(after=0)        # the server does what it is asked, and nobody hears of it

A thread per direction of each connection. Bytes already on their way when a rule changes may still pass.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from threading import Condition, Thread

from tests.servers.server import BOUND, Server


class Proxy:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        # All below belongs to whoever holds the condition.
        self._changed = Condition()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._stalled, self._delay = False, 0.0
        self._cut_after: int | None = None  # bytes of answers that may still pass
        self._only_after = b""
        self._armed = False
        self._skip, self._times = 0, 1
        self.cuts = 0
        Thread(target=self._accept, name="proxy", daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def stall(self) -> None:
        """Pass nothing, keep everything, close nothing."""
        with self._changed:
            self._stalled = True

    def resume(self) -> None:
        with self._changed:
            self._stalled = False
            self._changed.notify_all()

    def delay(self, seconds: float) -> None:
        """Hold back each chunk of an answer for so long."""
        with self._changed:
            self._delay = seconds

    def cut(self) -> None:
        """Break every connection; new ones are let in."""
        with self._changed:
            self._break()

    def cut_answer(self, after: int = 0, to: bytes = b"", skip: int = 0, times: int = 1) -> None:
        """Pass `after` bytes of the next answer (to a request with the bytes `to`; after `skip` whole ones), then break every connection.

        `times`: the answers after that too, each at its first byte.
        """
        with self._changed:
            self._cut_after, self._only_after, self._armed = after, to, not to
            self._skip, self._times = skip, times

    def leave(self) -> None:
        """Cut nothing any more."""
        with self._changed:
            self._cut_after, self._armed = None, False

    def lead_to(self, server: Server) -> None:
        """New connections go there, as when a name is given to another host."""
        self._server = server

    def has_cut(self, times: int = 1) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.cuts >= times, BOUND), f"the proxy has cut {self.cuts} of {times} times"

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.resume()
        self.cut()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                try:
                    server = socket.create_connection(("127.0.0.1", self._server.port), BOUND)
                except OSError:  # as if it were dead itself
                    client.close()
                    continue
                server.settimeout(None)
                with self._changed:
                    self._pairs.append((client, server))
                Thread(target=self._requests, args=(client, server), name="proxy requests", daemon=True).start()
                Thread(target=self._answers, args=(server, client), name="proxy answers", daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while chunk := client.recv(1 << 16):
                with self._changed:
                    self._changed.wait_for(lambda: not self._stalled)
                    self._armed = self._armed or (self._cut_after is not None and self._only_after in chunk)
                server.sendall(chunk)
        self._end(client, server)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while chunk := server.recv(1 << 16):
                time.sleep(self._delay)
                with self._changed:
                    self._changed.wait_for(lambda: not self._stalled)
                    if self._is_cut(chunk, client):
                        return
                client.sendall(chunk)
        self._end(client, server)

    def _is_cut(self, chunk: bytes, client: socket.socket) -> bool:
        if not self._armed or self._cut_after is None:
            return False
        if self._skip:
            self._skip -= 1
            return False
        with suppress(OSError):
            client.sendall(chunk[: self._cut_after])
        self._times -= 1
        self._cut_after = 0 if self._times else None
        self._break()
        return True

    def _break(self) -> None:
        self.cuts += 1
        for pair in self._pairs:
            for one in pair:
                _shut(one)
        self._pairs.clear()
        self._changed.notify_all()

    def _end(self, client: socket.socket, server: socket.socket) -> None:
        _shut(client)
        _shut(server)
        with self._changed, suppress(ValueError):
            self._pairs.remove((client, server))


def _shut(one: socket.socket) -> None:
    with suppress(OSError):  # the other direction may have been quicker
        one.shutdown(socket.SHUT_RDWR)

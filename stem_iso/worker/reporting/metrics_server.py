"""Server of a worker's metrics and probes: HTTP on one thread of the core, for few who ask often.

    GET /metrics    Prometheus' text
    GET /healthz    200 while the worker's loop turns, else 503
    GET /readyz     200 while it would run a task, else 503: it starts or stops, or the broker is away

Rules
 1. It touches nothing of the worker but `Vitals`, and waits for nobody who works: a task never waits for it.
 2. MOST connections at a time, one request each, of HEAD bytes and WITHIN seconds at most. Who is too slow is cut off, and where one more
    comes the oldest: whoever holds connections and says nothing must not make a kubelet believe that the worker is dead.
 3. The port is taken when the server is made, so that one that is taken already ends the start of the worker.
 4. It shows names of queues and tasks, and nothing that they are given; it changes nothing. So it asks nobody who he is.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from types import TracebackType

from stem_iso.client.metrics import CONTENT_TYPE
from stem_iso.errors import InvalidOptions
from stem_iso.worker.reporting.metrics import WorkerMetrics
from stem_iso.worker.vitals import Vitals

MOST, HEAD, WITHIN = 32, 8192, 5.0
STOP_WITHIN = 2.0
PLAIN = "text/plain; charset=utf-8"

Answer = tuple[str, str, bytes]  # status, content type, body


class MetricsServer:
    """Runs while its block does. Raises InvalidOptions where the address cannot be had."""

    def __init__(self, host: str, port: int, vitals: Vitals) -> None:
        self._vitals, self._metrics = vitals, WorkerMetrics(vitals)
        self._socket = _bound(host, port)
        self._open: dict[asyncio.StreamWriter, None] = {}  # oldest first; of the thread below
        self._loop = asyncio.SelectorEventLoop()  # ours, whatever policy the application has set
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="stem-iso-metrics", daemon=True)

    @property
    def url(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"

    def __enter__(self) -> MetricsServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(STOP_WITHIN)

    # -- its thread ----------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._on_connection, sock=self._socket, limit=HEAD)
        await self._stopped.wait()
        server.close()

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = None
        if len(self._open) > MOST:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.transport.abort()
        try:
            async with asyncio.timeout(WITHIN):
                await self._exchange(reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # too slow, gone, or no HTTP
        finally:
            self._open.pop(writer, None)
            writer.transport.abort()  # what is closed stays so

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.decode("latin-1").partition(" ")
        status, kind, body = self._answer(method, rest.partition(" ")[0].partition("?")[0])
        fields = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\nCache-Control: no-store"
        writer.write(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + (b"" if method == "HEAD" else body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def _answer(self, method: str, path: str) -> Answer:
        match path:
            case _ if method not in ("GET", "HEAD"):
                return "405 Method Not Allowed", PLAIN, b"GET\n"
            case "/metrics":
                return "200 OK", CONTENT_TYPE, self._metrics.text()
            case "/healthz":
                return _probe(self._vitals.unhealthy())
            case "/readyz":
                return _probe(self._vitals.unready())
            case _:
                return "404 Not Found", PLAIN, b"/metrics, /healthz, /readyz\n"


def _probe(trouble: str | None) -> Answer:
    return ("200 OK", PLAIN, b"ok\n") if trouble is None else ("503 Service Unavailable", PLAIN, f"{trouble}\n".encode())


def _bound(host: str, port: int) -> socket.socket:
    """ "::" is all addresses of both kinds, where the machine has both."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(found[4][:2], family=found[0], backlog=MOST, dualstack_ipv6=both)
    except socket.gaierror as error:
        raise InvalidOptions(f"--metrics-host {host!r}: {error.strerror}") from None
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise InvalidOptions(f"--metrics-port {port}: cannot listen at {host}: {why}; give another, or 0 for any that is free") from None

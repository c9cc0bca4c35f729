"""Command that serves the dashboard, under uvicorn, until Ctrl-C or TERM.

    stem-iso dashboard -A shop:app                       http://127.0.0.1:8080/, for who is on this machine
    stem-iso dashboard -A shop:app --host 0.0.0.0        refused without --token or --auth: everybody could do everything

Bound to loopback, it answers only under the names of loopback (`dashboard/protection.py`, rule 5). The token is better in the environment,
STEM_ISO_DASHBOARD_TOKEN, than in a command line, which every user of the machine can read.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import click

from stem_iso.cli import output
from stem_iso.cli.options import Reach, reaching
from stem_iso.config import PREFIX
from stem_iso.dashboard import dashboard as build
from stem_iso.errors import InvalidOptions
from stem_iso.printable import one_line
from stem_iso.worker.app_import import find_object

if TYPE_CHECKING:
    from starlette.applications import Starlette

LOOPBACK = ("localhost", "127.0.0.1", "::1")
STOP_WITHIN = 5  # seconds that open answers have when the server stops


@click.command()
@click.option("--host", default="127.0.0.1", metavar="H", show_default=True, help="The address to listen at.")
@click.option(
    "--port", default=8080, type=click.IntRange(0, 65535), metavar="N", show_default=True, help="Its port; 0 is any that is free."
)
@click.option("--token", envvar=PREFIX + "DASHBOARD_TOKEN", metavar="T", help="Who shows it may come in.  [STEM_ISO_DASHBOARD_TOKEN]")
@click.option("--auth", metavar="MODULE:CALLABLE", help="auth(request) -> bool says who may come in.")
@click.option("--read-only", is_flag=True, help="Show, and change nothing.")
@click.option("--allowed-host", "hosts", multiple=True, metavar="NAME", help="A name under which it may be called, too; again and again.")
@click.option("--root-path", default="", metavar="PATH", help="Where a proxy has it, such as /ops.")
@reaching
def dashboard(
    reach: Reach, host: str, port: int, token: str | None, auth: str | None, read_only: bool, hosts: tuple[str, ...], root_path: str
) -> None:
    """Serve the dashboard: pages, and a JSON API, of all that the broker holds."""
    if token is not None and not token.strip():
        raise InvalidOptions("--token: is empty; leave it out, or say one that nobody guesses: openssl rand -hex 24")
    local = is_loopback(host)
    if not local and token is None and auth is None:
        raise InvalidOptions(
            f"--host {host!r}: everybody who reaches that address could see and do everything; give --token (better: "
            "STEM_ISO_DASHBOARD_TOKEN) or --auth, or stay at 127.0.0.1 and let a proxy or `ssh -L` bring you there"
        )
    app = reach.stem()
    allow = None if auth is None else _callable(auth)
    asgi = build(app, token=token, read_only=read_only, auth=allow, hosts=(*LOOPBACK, *hosts) if local else hosts or None)
    listening = _bound(host, port)
    signal.signal(signal.SIGTERM, _leave)
    address = f"http://{_in_url(host)}:{listening.getsockname()[1]}{root_path}/"
    if reach.as_json:
        output.print_json({"url": address, "broker": app.site.shown, "read_only": read_only})
    else:
        click.echo(f"dashboard of {one_line(app.site.shown)} at {address}{' (read-only)' if read_only else ''}")
    _serve(asgi, listening, root_path)


def is_loopback(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: wherever it points to
        return False


def _callable(target: str) -> Callable[[Any], Any]:
    found = find_object("--auth", target)
    if not callable(found):
        raise InvalidOptions(
            f"--auth {target!r}: is a {type(found).__name__}, not callable; it gets the request, and answers whether it may"
        )
    return found


def _bound(host: str, port: int) -> socket.socket:
    """Raises InvalidOptions where the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InvalidOptions(f"--host {host!r}: {error.strerror or error}") from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(128)
    except OSError as error:
        made.close()
        raise InvalidOptions(
            f"--port {port}: cannot listen at {host}: {os.strerror(error.errno or 0)}; give another, or 0 for any"
        ) from None
    return made


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _leave(number: int, frame: object) -> NoReturn:
    """TERM ends it with 0, Ctrl-C as any command: uvicorn raises the signal once more when all is closed."""
    raise SystemExit(0)


def _serve(asgi: Starlette, listening: socket.socket, root_path: str) -> None:
    import uvicorn

    config = uvicorn.Config(
        asgi,
        root_path=root_path.rstrip("/"),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=STOP_WITHIN,
        limit_concurrency=500,
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[listening])

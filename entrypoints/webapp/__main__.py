"""The service under uvicorn, on loopback. The worker is a command of its own, see `entrypoints.webapp`."""

from __future__ import annotations

import argparse

import uvicorn


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m entrypoints.webapp", description="A web service that starts, shows and cancels tasks.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free; uvicorn says which")
    arguments = parser.parse_args()
    # Open event streams last as long as their task: a stop waits no longer than this for them.
    uvicorn.run("entrypoints.webapp:app", host=arguments.host, port=arguments.port, timeout_graceful_shutdown=3)


if __name__ == "__main__":
    main()

"""Serve: python -m functions, as root, in the directory that holds it; --help tells the options."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections.abc import Generator
from pathlib import Path
from typing import get_args

import uvicorn

from runc_async import Runc

from .app import create_app
from .function import MIB, Function, Limits, Mode


class Server(uvicorn.Server):
    """A server that ends by SIGTERM and Ctrl-C; uvicorn's own ends the process with them, before the pool's end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle signals in the event loop, and go on doing so: none cuts the clean-up short."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._end)
        yield

    def _end(self) -> None:
        self.should_exit = True


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="functions", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=8001, help="port to listen at; 0 takes any that is free")
    parser.add_argument("--handler", type=Path, default=Path(__file__).with_name("handler.py"), help="the function")
    parser.add_argument("--mode", choices=get_args(Mode), default="running", help="what waiting containers do")
    parser.add_argument("--size", type=int, default=8, help="containers that are held ready")
    parser.add_argument("--runtime", default="runc", help="name or path of the runtime")
    parser.add_argument("--root", default="/run/functions", help="the runtime's --root, of this service alone")
    parser.add_argument("--name", default="function", help="what ids of containers begin with")
    parser.add_argument("--memory", type=int, default=Limits().memory // MIB, help="MiB that a call may use")
    parser.add_argument("--seconds", type=float, default=Limits().seconds, help="time that a call may take")
    return parser.parse_args(arguments)


async def main(options: argparse.Namespace) -> None:
    """Serve until a signal comes; then all containers are deleted."""
    runc = Runc(options.runtime, root=options.root, timeout=30)
    limits = Limits(memory=options.memory * MIB, seconds=options.seconds)
    for left in await runc.list():  # by a service that was killed
        await runc.delete(left.id, force=True)
    opening = Function.open(
        runc, options.handler, mode=options.mode, size=options.size, name=options.name, limits=limits
    )
    async with opening as function:
        config = uvicorn.Config(create_app(function), host=options.host, port=options.port, lifespan="off")
        await Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main(parse()))

"""Serve: python -m sandbox_service, as root, in the directory that holds it; --help tells the options."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
from collections.abc import Generator
from typing import Any

import uvicorn

from runc_async import Runc, subreaper

from .app import LOCAL_HOSTS, create_app
from .kept import KeptSandbox
from .limits import MIB, Limits
from .metrics import Metrics
from .sandbox import Sandbox

SHUTDOWN = 30
"""Seconds that clients may take to read how their runs have ended, when the service does."""


class Server(uvicorn.Server):
    """A server that ends its runs when it is told to end: SIGTERM, or Ctrl-C."""

    def __init__(self, config: uvicorn.Config, sandbox: Sandbox) -> None:
        super().__init__(config)
        self._sandbox = sandbox

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle signals in the event loop; uvicorn would end the process by them, before its last clean-up."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._end)
        yield  # and leave it so: no second signal cuts the clean-up short

    def _end(self) -> None:
        self._sandbox.stop()
        self.should_exit = True


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    standard = Limits()
    parser = argparse.ArgumentParser(prog="sandbox_service", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at; 0 takes any that is free")
    parser.add_argument("--allow-host", action="append", default=[], help="one more name by which clients may call it")
    parser.add_argument("--runtime", default="runc", help="name or path of the runtime")
    parser.add_argument("--root", default="/run/sandbox-service", help="the runtime's --root, of this service alone")
    parser.add_argument("--data", default="/var/lib/sandbox-service", help="directory for its files, likewise")
    parser.add_argument("--keeper", help="directory of a keeper, with which runs outlive the service")
    parser.add_argument("--name", default="sandbox", help="what ids of containers begin with")
    parser.add_argument("--at-once", type=int, default=4, help="scripts that may run at once")
    parser.add_argument("--queue", type=int, default=100, help="scripts that may wait")
    parser.add_argument("--memory", type=int, default=standard.memory // MIB, help="MiB that a script may use")
    parser.add_argument("--seconds", type=float, default=standard.seconds, help="time that a script may take")
    parser.add_argument("--cpus", type=float, default=standard.cpus, help="cores that a script may use")
    parser.add_argument("--output", type=int, default=standard.output // MIB, help="MiB that a script may print")
    return parser.parse_args(arguments)


async def main(options: argparse.Namespace) -> None:
    """Serve until a signal comes."""
    runc = Runc(options.runtime, root=options.root, timeout=30)
    limits = Limits(
        memory=options.memory * MIB, output=options.output * MIB, seconds=options.seconds, cpus=options.cpus
    )
    metrics = Metrics()
    bundles = os.path.join(options.data, "bundles")
    others: dict[str, Any] = {"name": options.name, "at_once": options.at_once, "queue": options.queue}
    opening: contextlib.AbstractAsyncContextManager[Sandbox] = (
        KeptSandbox.open_kept(runc, metrics, limits, bundles=bundles, keeper=options.keeper, **others)
        if options.keeper
        else Sandbox.open(runc, metrics, limits, bundles=bundles, **others)
    )
    async with opening as sandbox:
        app = create_app(sandbox, metrics, hosts=(*LOCAL_HOSTS, *options.allow_host))
        config = uvicorn.Config(
            app, host=options.host, port=options.port, lifespan="off", timeout_graceful_shutdown=SHUTDOWN
        )
        await Server(config, sandbox).serve()


if __name__ == "__main__":
    with subreaper():  # so that exit statuses are known on every kernel
        asyncio.run(main(parse()))

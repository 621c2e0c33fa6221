"""Run it: python -m node_agent, as root, in the directory that holds it; --help tells the options."""

from __future__ import annotations

import argparse
import logging
import signal
from collections.abc import Mapping

import anyio
from prometheus_client import CollectorRegistry, start_http_server
from rich.live import Live
from rich.table import Table

from runc_async import Runc, subreaper
from runc_async.prometheus import ContainerCollector

from .agent import Agent, Row, log


def table(rows: Mapping[str, Row]) -> Table:
    """Make the table."""
    made = Table("container", "state", title=f"{len(rows)} containers")
    for name in ("CPU", "memory", "pids", "restarts"):
        made.add_column(name, justify="right")
    made.add_column("last end")
    for name, row in sorted(rows.items()):
        cpu = "" if row.cpu is None else f"{row.cpu:.0f} %"
        memory = "" if row.memory is None else f"{row.memory / (1 << 20):.1f} MiB"
        made.add_row(name, row.state, cpu, memory, str(row.pids or ""), str(row.restarts or ""), row.end)
    return made


async def main(options: argparse.Namespace) -> None:
    """Work until SIGTERM or Ctrl-C."""
    runc, registry = Runc(options.runtime, root=options.root), CollectorRegistry()
    agent = Agent(runc, registry)
    registry.register(ContainerCollector(runc))
    server, _ = start_http_server(options.port, "127.0.0.1", registry)
    log.info("metrics at http://127.0.0.1:%d/metrics", server.server_port)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agent.follow)
        tasks.start_soon(agent.measure, options.interval)
        if options.table:
            tasks.start_soon(show, agent, options.interval)
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                break
        tasks.cancel_scope.cancel()  # the containers stay
    server.shutdown()
    server.server_close()


async def show(agent: Agent, interval: float) -> None:
    """Show the table, and keep it up to date."""
    with Live(auto_refresh=False, screen=True) as live:
        while True:
            live.update(table(agent.rows), refresh=True)
            await anyio.sleep(interval)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="node_agent", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--runtime", default="runc", help="name or path of the runtime")
    parser.add_argument("--root", help="the runtime's --root")
    parser.add_argument("--port", type=int, default=9101, help="port for Prometheus; 0 takes any that is free")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between two readings")
    parser.add_argument("--log", help="file for the log; stderr if there is none")
    parser.add_argument("--table", action=argparse.BooleanOptionalAction, default=True, help="show the table")
    options = parser.parse_args()
    logging.basicConfig(filename=options.log, level=logging.INFO, format="%(asctime)s %(message)s")
    with subreaper():  # so that the exit statuses of restarted containers are known on every kernel
        anyio.run(main, options)

"""Show CPU and memory of all running containers, live: python events.py [root]."""

import asyncio
import sys

from rich.live import Live
from rich.table import Table

from runc_async import Runc, StatsEvent, Status, StreamEnded, merge_events
from runc_async.figures import cpu_percent, memory_working_set


def table(rows: dict[str, tuple[float | None, int | None]]) -> Table:
    """Put the containers into a table, with a dash for what isn't known."""
    view, dash = Table("container", "CPU", "memory"), "\N{EN DASH}"
    for name, (cpu, memory) in sorted(rows.items()):
        shown = dash if memory is None else f"{memory / 2**20:.1f} MiB"
        view.add_row(name, dash if cpu is None else f"{cpu:.1f} %", shown)
    return view


async def main(root: str | None = None) -> None:
    """Watch until all containers have ended."""
    runc = Runc(root=root)
    running = [state.id for state in await runc.list() if state.status == Status.RUNNING]
    last: dict[str, StatsEvent] = {}
    rows: dict[str, tuple[float | None, int | None]] = {}
    async with merge_events(runc.events(name, interval=1, on_lag="latest") for name in running) as events:
        with Live(table(rows)) as live:
            async for event in events:
                if isinstance(event, StatsEvent):
                    cpu = cpu_percent(last[event.id], event) if event.id in last else None
                    rows[event.id], last[event.id] = (cpu, memory_working_set(event)), event
                elif isinstance(event, StreamEnded) and rows.pop(event.id, None):
                    live.console.print(event.id, "has ended")
                live.update(table(rows))


asyncio.run(main(*sys.argv[1:]))

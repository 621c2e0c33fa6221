"""Show CPU and memory of all running containers, live: python events.py [root]."""

import asyncio
import sys

from rich.live import Live
from rich.table import Table

from runc_async import Runc, Stats, StatsEvent, Status, merge_events
from runc_async.figures import cpu_percent, memory_working_set


def table(rows: dict[str, tuple[str, str]]) -> Table:
    """Lay the figures out."""
    view = Table("container", "CPU", "memory")
    for name, figures in sorted(rows.items()):
        view.add_row(name, *figures)
    return view


async def main(root: str | None = None) -> None:
    """Watch until all containers have ended."""
    runc = Runc(root=root)
    running = [state.id for state in await runc.list() if state.status == Status.RUNNING]
    streams = [runc.events(name, interval=1) for name in running]
    before: dict[str, Stats] = {}
    rows: dict[str, tuple[str, str]] = {}
    async with merge_events(streams) as events:
        with Live(table(rows)) as live:
            async for event in events:
                if isinstance(event, StatsEvent):
                    cpu = cpu_percent(before.get(event.id, event.data), event.data, seconds=1) or 0
                    memory = memory_working_set(event.data) or 0
                    rows[event.id] = f"{cpu:.1f} %", f"{memory / 2**20:.1f} MiB"
                    before[event.id] = event.data
                    live.update(table(rows))


asyncio.run(main(*sys.argv[1:]))

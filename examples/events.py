"""Show CPU and memory of all running containers, live: python events.py [root]."""

import asyncio
import sys

from rich.live import Live
from rich.table import Table

from runc_async import Runc, StatsEvent, Status, StreamEnded, merge_events
from runc_async.figures import cpu_percent, memory_working_set


def row(before: StatsEvent | None, now: StatsEvent) -> tuple[str, ...]:
    """Say what is known of a container, with a dash for the rest: the first reading tells no CPU time yet."""
    cpu, memory = None if before is None else cpu_percent(before, now), memory_working_set(now)
    known = (None if cpu is None else f"{cpu:.1f} %", None if memory is None else f"{memory / 2**20:.1f} MiB")
    return now.id, *(shown or "\N{EN DASH}" for shown in known)


async def main(root: str | None = None) -> None:
    """Watch until all containers have ended."""
    runc = Runc(root=root)
    running = [state.id for state in await runc.list() if state.status == Status.RUNNING]
    last: dict[str, StatsEvent] = {}
    rows: dict[str, tuple[str, ...]] = {}
    async with merge_events(runc.events(name, interval=1, on_lag="latest") for name in running) as events:
        with Live(Table("container", "CPU", "memory")) as live:
            async for event in events:
                if isinstance(event, StatsEvent):
                    rows[event.id], last[event.id] = row(last.get(event.id), event), event
                elif isinstance(event, StreamEnded):
                    live.console.print(*rows.pop(event.id, (event.id,)), "has ended")
                view = Table("container", "CPU", "memory")
                for _, shown in sorted(rows.items()):
                    view.add_row(*shown)
                live.update(view)


asyncio.run(main(*sys.argv[1:]))

"""Show CPU and memory of all running containers, live: python events.py [root]."""

import asyncio
import sys

from rich.live import Live
from rich.table import Table

from runc_async import Runc, StatsEvent, Status, StreamEnded, merge_events
from runc_async.figures import cpu_percent, memory_working_set


def row(before: StatsEvent | None, now: StatsEvent) -> tuple[str, str, str]:
    """Say what is known of a container: the first reading tells no CPU time yet."""
    cpu = None if before is None else cpu_percent(before, now)
    memory = memory_working_set(now)
    dash = "\N{EN DASH}"
    return now.id, dash if cpu is None else f"{cpu:.1f} %", dash if memory is None else f"{memory / 2**20:.1f} MiB"


async def main(root: str | None = None) -> None:
    """Watch until all containers have ended."""
    runc = Runc(root=root)
    running = [state.id for state in await runc.list() if state.status == Status.RUNNING]
    latest: dict[str, StatsEvent] = {}
    rows: dict[str, tuple[str, str, str]] = {}
    async with merge_events(runc.events(name, interval=1, on_lag="latest") for name in running) as events:
        with Live() as live:
            async for event in events:
                if isinstance(event, StatsEvent):
                    rows[event.id] = row(latest.get(event.id), event)
                    latest[event.id] = event
                elif isinstance(event, StreamEnded):
                    live.console.print(*rows.pop(event.id, (event.id,)), "has ended")
                view = Table("container", "CPU", "memory")
                for _, figures in sorted(rows.items()):
                    view.add_row(*figures)
                live.update(view)


asyncio.run(main(*sys.argv[1:]))

"""Tell which containers run out of memory: python oom_watch.py [root]."""

import asyncio
import sys

from runc_async import OOMEvent, Runc, StreamFailed, merge_events


async def main(root: str | None = None) -> None:
    """Watch all containers until they have ended."""
    runc = Runc(root=root)
    streams = [runc.events(state.id, interval=60) for state in await runc.list()]
    print(f"watching {len(streams)} containers", flush=True)
    async with merge_events(streams) as events:
        async for event in events:
            match event:
                case OOMEvent(container_id):
                    print(f"{container_id} ran out of memory", flush=True)
                case StreamFailed(container_id, error):
                    print(f"{container_id} isn't watched: {error}", flush=True)
                case _:
                    pass


asyncio.run(main(*sys.argv[1:]))
